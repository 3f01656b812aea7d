"""A pretrained language model as a sentence encoder: the hidden state after a prompt that asks for a text in one word.

The method is PromptEOL (Jiang et al. 2023, arXiv:2307.16645). It also works after fine-tuning on question-answer pairs,
so a trained model encodes its own questions and no second model is stored.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file
from transformers import PreTrainedModel

from qa_lm.data.tokenizer import TextTokenizer
from qa_lm.errors import first_line, reading
from qa_lm.retrieval.known_pairs import KnownPairs

FILE = "model_encoder.safetensors"
BEFORE, AFTER = 'This sentence : "', '" means in one word:"'
BATCH = 16
SMALLEST_DEVIATION = 1e-6


class ModelEncoder:
    """Texts to unit vectors, by a causal language model.

    Args:
        model: the model.
        tokenizer: its tokenizer.
        mean: mean of the hidden states of the known texts, (hidden_size,).
        deviation: their standard deviation, (hidden_size,).
        known: vectors of the known texts.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: TextTokenizer,
        mean: np.ndarray,
        deviation: np.ndarray,
        known: dict[str, np.ndarray],
    ) -> None:
        self.model, self.tokenizer = model, tokenizer
        self.mean, self.deviation, self.known = mean, deviation, known

    @classmethod
    def fitted(cls, model: PreTrainedModel, tokenizer: TextTokenizer, pairs: KnownPairs) -> "ModelEncoder":
        """Encode the known pairs; mean and deviation are those of question and answer together."""
        states = _hidden_states(model, tokenizer, pairs.texts)
        deviation = np.maximum(states.std(axis=0), SMALLEST_DEVIATION)
        encoder = cls(model, tokenizer, states.mean(axis=0), deviation, {})
        encoder.known |= zip(pairs.texts, encoder._unit(states), strict=True)
        encoder.known |= zip(pairs.questions, encoder.vectors(pairs.questions), strict=True)
        return encoder

    def load(self) -> "ModelEncoder":
        """Return this encoder, which needs nothing else."""
        return self

    def vectors(self, texts: Sequence[str]) -> np.ndarray:
        """Return unit vectors, (texts, hidden_size), float32."""
        found = self.known
        if new := [text for text in dict.fromkeys(texts) if text not in found]:
            found = found | dict(zip(new, self._unit(_hidden_states(self.model, self.tokenizer, new)), strict=True))
        return np.stack([found[text] for text in texts]) if texts else np.zeros((0, len(self.mean)), np.float32)

    def save(self, folder: Path) -> None:
        """Write mean, deviation and the vectors of the known texts into the model's folder."""
        vectors = np.stack(list(self.known.values()))
        save_file({"mean": self.mean, "deviation": self.deviation, "vectors": vectors}, folder / FILE)

    @classmethod
    def read(
        cls, folder: Path, model: PreTrainedModel, tokenizer: TextTokenizer, pairs: KnownPairs
    ) -> "ModelEncoder | None":
        """Read what `save` wrote; None if the folder has no such file.

        Raises:
            UserError: the file is damaged, or belongs to another model or other pairs.
        """
        path = folder / FILE
        if not path.is_file():
            return None
        with reading(path, "is not valid"):
            found = _tensors(path)
            texts = dict.fromkeys([*pairs.texts, *pairs.questions])
            width = model.config.hidden_size
            shapes = {"mean": (width,), "deviation": (width,), "vectors": (len(texts), width)}
            if any(found[name].shape != shape for name, shape in shapes.items()):
                raise ValueError("it belongs to another model, or to other pairs")
            known = dict(zip(texts, found["vectors"], strict=True))
            return cls(model, tokenizer, found["mean"], found["deviation"], known)

    def _unit(self, states: np.ndarray) -> np.ndarray:
        vectors = (states - self.mean) / self.deviation
        lengths = np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), SMALLEST_DEVIATION)
        unit: np.ndarray = (vectors / lengths).astype(np.float32)
        return unit


def _tensors(path: Path) -> dict[str, np.ndarray]:
    try:
        return load_file(path)
    except SafetensorError as error:
        raise ValueError(first_line(error)) from None


@torch.inference_mode()
def _hidden_states(model: PreTrainedModel, tokenizer: TextTokenizer, texts: Sequence[str]) -> np.ndarray:
    """The last hidden state after the prompt with each text, (texts, hidden_size), float32."""
    before, after = tokenizer.encode([BEFORE, AFTER])
    before = [*tokenizer.prefix, *before]
    room = model.config.max_position_embeddings - len(before) - len(after)
    prompts = [[*before, *ids[:room], *after] for ids in tokenizer.encode(list(texts))]
    states = np.empty((len(prompts), model.config.hidden_size), np.float32)
    order = sorted(range(len(prompts)), key=lambda place: len(prompts[place]))  # the least padding
    for begin in range(0, len(order), BATCH):
        places = order[begin : begin + BATCH]
        rows = [torch.tensor(prompts[place], device=model.device) for place in places]
        ends = [len(row) - 1 for row in rows]
        # Padding comes after a text, so no position of the text sees it.
        inputs = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
        found = model.base_model(input_ids=inputs, use_cache=False).last_hidden_state
        states[places] = found[torch.arange(len(ends)), ends].float().cpu().numpy()
    return states

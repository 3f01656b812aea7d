"""What greedy decoding would write at each position of a given answer, without generating it.

One forward pass gives the greedy token at every position. The model would write the answer exactly if and only if all
of them equal the answer's tokens and the one after it ends the answer, see `qa_lm.modeling.loss`.
"""

import copy
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from qa_lm.data.encoding import Example
from qa_lm.inference.scoring import POSITIONS, pack_texts
from qa_lm.modeling.causal_lm import head, hidden_states, logits
from qa_lm.modeling.custom_model import continues_from_cache
from qa_lm.modeling.prediction import CHUNK_LOGITS, CHUNK_ROWS

CACHE_BYTES = 1 << 28
"""Maximum memory for the keys and values of a batch that continues a prefix."""


class Forced(NamedTuple):
    """An answer under teacher forcing."""

    greedy: list[int]
    """Greedy token at each position of the answer, and at the one after it."""
    loss: float
    """Mean loss of the answer's tokens, EOS included, in nats."""


@torch.inference_mode()
def force(model: PreTrainedModel, examples: Sequence[Example], packed: bool = True) -> list[Forced]:
    """Force each answer after its prompt, in order.

    Args:
        model: a causal LM in eval mode, whose logits are `head(body(x))`.
        examples: encoded pairs, each at most as long as the model's context.
        packed: whether several examples may share a row.
    """
    forced: dict[int, Forced] = {}
    for part in pack_texts([example.ids[:-1] for example in examples], packed) if examples else ():
        inputs, positions = (torch.from_numpy(each).to(model.device) for each in (part.inputs, part.positions))
        forced |= _forced(model, hidden_states(model, inputs, positions), part.starts, examples)
    return [forced[number] for number in range(len(examples))]


class Prefix:
    """A text that precedes many prompts. It is run through the model once; all prompts reuse its keys and values.

    Args:
        model: see `force`.
        ids: ids of the text.
    """

    @torch.inference_mode()
    def __init__(self, model: PreTrainedModel, ids: list[int]) -> None:
        self.model, self.ids = model, ids
        self.cache: DynamicCache | None = None
        if continues_from_cache(model):
            self.cache = DynamicCache(config=model.config)
            inputs = torch.tensor([ids], device=model.device)
            hidden_states(model, inputs, torch.arange(len(ids), device=model.device)[None], cache=self.cache)

    @torch.inference_mode()
    def force(self, examples: Sequence[Example]) -> list[Forced]:
        """Force each answer after this text and its prompt, in order; see `force`."""
        if self.cache is None:  # the model continues none
            whole = [Example(self.ids + each.ids, len(self.ids) + each.prompt_tokens) for each in examples]
            return force(self.model, whole, packed=False)
        forced: dict[int, Forced] = {}
        for numbers in self._batches(examples):
            width = max(len(examples[number].ids) for number in numbers) - 1
            inputs = np.zeros((len(numbers), width), np.int64)
            for row, number in enumerate(numbers):
                inputs[row, : len(examples[number].ids) - 1] = examples[number].ids[:-1]
            cache = copy.deepcopy(self.cache)
            cache.batch_repeat_interleave(len(numbers))
            positions = torch.arange(len(self.ids), len(self.ids) + width, device=self.model.device)
            rows = torch.from_numpy(inputs).to(self.model.device)
            hidden = hidden_states(self.model, rows, positions.expand(inputs.shape), cache=cache)
            starts = {number: (row, 0) for row, number in enumerate(numbers)}
            forced |= _forced(self.model, hidden, starts, examples)
        return [forced[number] for number in range(len(examples))]

    def _batches(self, examples: Sequence[Example]) -> Iterator[list[int]]:
        """Numbers of the examples of each batch, in which lengths are similar and memory is bounded."""
        assert self.cache is not None
        tensors = (each for layer in self.cache.layers for each in vars(layer).values() if isinstance(each, Tensor))
        per_position = sum(each.nbytes for each in tensors) / len(self.ids)
        batch: list[int] = []
        for number in sorted(range(len(examples)), key=lambda each: len(examples[each].ids)):
            width, rows = len(examples[number].ids), len(batch) + 1
            memory = rows * (len(self.ids) + width) * per_position
            if batch and (rows * width > POSITIONS or memory > CACHE_BYTES):
                yield batch
                batch = []
            batch.append(number)
        if batch:
            yield batch


def _forced(
    model: PreTrainedModel, hidden: Tensor, starts: Mapping[int, tuple[int, int]], examples: Sequence[Example]
) -> dict[int, Forced]:
    """Read the answers of a batch from its hidden states (rows, time, hidden_size).

    Args:
        model: the model.
        hidden: the hidden states.
        starts: row and first column of each example, by its number.
        examples: all examples.
    """
    places: list[int] = []
    targets: list[int] = []
    ends: list[int] = []
    for number, (row, start) in starts.items():
        example = examples[number]
        first = row * hidden.shape[1] + start + example.prompt_tokens - 1
        places += range(first, first + len(example.answer_ids))
        targets += example.answer_ids
        ends.append(len(targets))
    states = hidden.flatten(0, 1)[torch.tensor(places, device=hidden.device)]
    greedy, losses = _greedy_and_losses(model, states, torch.tensor(targets, device=hidden.device))
    begins = [0, *ends[:-1]]
    return {
        number: Forced(greedy[begin:end].tolist(), float(losses[begin:end].mean()))
        for number, begin, end in zip(starts, begins, ends, strict=True)
    }


def _greedy_and_losses(model: PreTrainedModel, states: Tensor, targets: Tensor) -> tuple[np.ndarray, np.ndarray]:
    linear = head(model)
    rows = max(CHUNK_ROWS, CHUNK_LOGITS // linear.out_features)
    greedy, losses = [], []
    for part, wanted in zip(states.split(rows), targets.split(rows), strict=True):
        scores = logits(model, part).float()
        greedy.append(scores.argmax(-1))
        losses.append(torch.nn.functional.cross_entropy(scores, wanted, reduction="none"))
    return torch.cat(greedy).cpu().numpy(), torch.cat(losses).cpu().numpy()

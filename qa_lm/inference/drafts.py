"""Verify drafts of answers against greedy decoding, in one packed forward pass."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from transformers import PreTrainedModel

from qa_lm.inference.scoring import PackedTexts, pack_texts
from qa_lm.modeling.causal_lm import hidden_states
from qa_lm.modeling.prediction import Prediction, predict_tokens


@dataclass(frozen=True)
class Draft:
    """A prompt and a draft of its answer."""

    prompt: list[int]
    answer: list[int]
    """Ids of the draft, without EOS."""

    def __len__(self) -> int:
        return len(self.prompt) + len(self.answer)


@dataclass(frozen=True)
class VerifiedDraft:
    """The greedy token at each position of a draft, and after its end, given the draft so far."""

    ids: np.ndarray
    """Greedy tokens, int64, (draft + 1,)."""
    log_probabilities: np.ndarray
    """Log-probabilities of the greedy tokens, in nats, (draft + 1,)."""
    eos_log_probability: float
    """Log-probability of EOS after the draft, in nats."""

    def accepted(self, draft: Draft) -> int:
        """Length of the longest prefix of the draft that equals the greedy tokens."""
        wrong = np.flatnonzero(self.ids[:-1] != np.array(draft.answer, np.int64))
        return int(wrong[0]) if len(wrong) else len(draft.answer)


def verify_drafts(
    model: PreTrainedModel, drafts: Sequence[Draft], eos_id: int, packed: bool = True
) -> list[VerifiedDraft]:
    """Verify each draft, in order.

    Args:
        model: a causal LM in eval mode, see `qa_lm.modeling.causal_lm.check_logits`.
        drafts: non-empty prompts with drafts; each is at most as long as the model's context.
        eos_id: id of EOS.
        packed: whether several drafts may share a row.
    """
    verified: dict[int, VerifiedDraft] = {}
    for part in pack_texts([draft.prompt + draft.answer for draft in drafts], packed) if drafts else ():
        verified.update(_verify(model, part, drafts, eos_id))
    return [verified[number] for number in range(len(drafts))]


@torch.inference_mode()
def _verify(
    model: PreTrainedModel, part: PackedTexts, drafts: Sequence[Draft], eos_id: int
) -> Iterator[tuple[int, VerifiedDraft]]:
    answers = np.zeros(part.inputs.shape, bool)  # whether the next token belongs to an answer, EOS included
    for number, (row, start) in part.starts.items():
        draft = drafts[number]
        answers[row, start + len(draft.prompt) - 1 : start + len(draft)] = True
    inputs, positions, wanted = (
        torch.from_numpy(each).to(model.device) for each in (part.inputs, part.positions, answers)
    )
    hidden = hidden_states(model, inputs, positions)[wanted]  # (answer positions, hidden_size)
    return _split_by_draft(predict_tokens(model, hidden, eos_id), part.starts, drafts)


def _split_by_draft(
    prediction: Prediction, numbers: Iterable[int], drafts: Sequence[Draft]
) -> Iterator[tuple[int, VerifiedDraft]]:
    ids, log_probabilities, eos = (each.cpu().numpy() for each in prediction)
    start = 0
    for number in numbers:
        end = start + len(drafts[number].answer) + 1
        yield number, VerifiedDraft(ids[start:end], log_probabilities[start:end], float(eos[end - 1]))
        start = end

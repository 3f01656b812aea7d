"""Verify drafts of answers against greedy decoding, in one packed forward pass."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel

from qa_lm.data.batches.batching import PackedRows
from qa_lm.modeling.causal_lm import head, hidden_states
from qa_lm.modeling.prediction import Prediction, predict_tokens

POSITIONS = 4096
"""Positions of a forward pass."""
MIN_ROW = 64
"""Minimum positions of a row."""


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
        model: a causal LM in eval mode, whose logits are `head(body(x))`.
        drafts: non-empty prompts with drafts; each is at most as long as the model's context.
        eos_id: id of EOS.
        packed: whether several drafts may share a row.
    """
    if not drafts:
        return []
    lengths = np.array([len(draft) for draft in drafts], np.int64)
    row_tokens = max(MIN_ROW, 1 << int(lengths.max() - 1).bit_length())
    rows_at_once = max(1, POSITIONS // row_tokens)
    alone = ([number] for number in range(len(drafts)))
    rows = list(PackedRows(np.arange(len(drafts)), lengths, False, 0, rows_at_once, row_tokens) if packed else alone)
    verified: dict[int, VerifiedDraft] = {}
    for begin in range(0, len(rows), rows_at_once):
        batch = [[int(number) for number in row] for row in rows[begin : begin + rows_at_once]]
        verified.update(_verify_rows(model, batch, drafts, row_tokens, eos_id))
    return [verified[number] for number in range(len(drafts))]


@torch.inference_mode()
def _verify_rows(
    model: PreTrainedModel, rows: list[list[int]], drafts: Sequence[Draft], row_tokens: int, eos_id: int
) -> Iterator[tuple[int, VerifiedDraft]]:
    inputs, positions = (np.zeros((len(rows), row_tokens), np.int64) for _ in range(2))
    answers = np.zeros((len(rows), row_tokens), bool)  # whether the next token belongs to an answer, EOS included
    for row, numbers in enumerate(rows):
        start = 0
        for draft in (drafts[number] for number in numbers):
            end = start + len(draft)
            inputs[row, start:end] = draft.prompt + draft.answer
            positions[row, start:end] = np.arange(len(draft))
            answers[row, start + len(draft.prompt) - 1 : end] = True
            start = end
    on_device: list[Any] = [torch.from_numpy(each).to(model.device) for each in (inputs, positions, answers)]
    hidden = hidden_states(model, on_device[0], on_device[1])[on_device[2]]  # (answer positions, hidden_size)
    return _split_by_draft(predict_tokens(hidden, head(model), eos_id), rows, drafts)


def _split_by_draft(
    prediction: Prediction, rows: list[list[int]], drafts: Sequence[Draft]
) -> Iterator[tuple[int, VerifiedDraft]]:
    ids, log_probabilities, eos = (each.cpu().numpy() for each in prediction)
    start = 0
    for number in (number for row in rows for number in row):
        end = start + len(drafts[number].answer) + 1
        yield number, VerifiedDraft(ids[start:end], log_probabilities[start:end], float(eos[end - 1]))
        start = end

"""One packed forward pass over prompts with drafts of their answers: what would greedy decoding have said?"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel

from qa_lm.data.batches.batching import PackedRows
from qa_lm.modeling.causal_lm import head, hidden_states
from qa_lm.modeling.prediction import Predicted, predicted

POSITIONS = 4096
"""Positions of a forward pass."""
SHORTEST_ROW = 64
"""Positions of a row, or more where an example needs more."""


@dataclass(frozen=True)
class Draft:
    """A prompt and what its answer may be."""

    prompt: list[int]
    answer: list[int]
    """Without the EOS."""

    def __len__(self) -> int:
        return len(self.prompt) + len(self.answer)


@dataclass(frozen=True)
class Checked:
    """A draft, seen by the model: at each of its places, and at the end, the greedy token given the draft so far."""

    ids: np.ndarray
    """The greedy tokens, int64, (draft + 1,)."""
    log_probabilities: np.ndarray
    """Their log-probabilities, in nats, (draft + 1,)."""
    eos_log_probability: float
    """Of EOS at the end of the draft."""

    def agreed(self, draft: Draft) -> int:
        """How many of the draft's first tokens are the greedy ones."""
        wrong = np.flatnonzero(self.ids[:-1] != np.array(draft.answer, np.int64))
        return int(wrong[0]) if len(wrong) else len(draft.answer)


def checked_drafts(model: PreTrainedModel, drafts: Sequence[Draft], eos_id: int, packed: bool = True) -> list[Checked]:
    """Every draft checked, in order.

    Args:
        model: a causal LM whose logits are its head's of its body's output, in eval mode.
        drafts: prompts, none empty, with drafts; no longer together than the model's context.
        eos_id: where an answer ends.
        packed: whether several may share a row.
    """
    if not drafts:
        return []
    lengths = np.array([len(draft) for draft in drafts], np.int64)
    row_tokens = max(SHORTEST_ROW, 1 << int(lengths.max() - 1).bit_length())
    rows_at_once = max(1, POSITIONS // row_tokens)
    alone = ([number] for number in range(len(drafts)))
    rows = list(PackedRows(np.arange(len(drafts)), lengths, False, 0, rows_at_once, row_tokens) if packed else alone)
    found: dict[int, Checked] = {}
    for begin in range(0, len(rows), rows_at_once):
        batch = [[int(number) for number in row] for row in rows[begin : begin + rows_at_once]]
        found.update(_checked_rows(model, batch, drafts, row_tokens, eos_id))
    return [found[number] for number in range(len(drafts))]


@torch.inference_mode()
def _checked_rows(
    model: PreTrainedModel, rows: list[list[int]], drafts: Sequence[Draft], row_tokens: int, eos_id: int
) -> Iterator[tuple[int, Checked]]:
    inputs, positions = (np.zeros((len(rows), row_tokens), np.int64) for _ in range(2))
    asked = np.zeros((len(rows), row_tokens), bool)  # where an answer's token, or its EOS, comes next
    for row, numbers in enumerate(rows):
        at = 0
        for draft in (drafts[number] for number in numbers):
            end = at + len(draft)
            inputs[row, at:end] = draft.prompt + draft.answer
            positions[row, at:end] = np.arange(len(draft))
            asked[row, at + len(draft.prompt) - 1 : end] = True
            at = end
    on_device: list[Any] = [torch.from_numpy(each).to(model.device) for each in (inputs, positions, asked)]
    hidden = hidden_states(model, on_device[0], on_device[1])[on_device[2]]  # (asked, hidden_size)
    return _parted(predicted(hidden, head(model), eos_id), rows, drafts)


def _parted(all_rows: Predicted, rows: list[list[int]], drafts: Sequence[Draft]) -> Iterator[tuple[int, Checked]]:
    ids, log_probabilities, eos = (each.cpu().numpy() for each in all_rows)
    at = 0
    for number in (number for row in rows for number in row):
        end = at + len(drafts[number].answer) + 1
        yield number, Checked(ids[at:end], log_probabilities[at:end], float(eos[end - 1]))
        at = end

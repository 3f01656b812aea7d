"""Rows of examples to a batch of tensors."""

import numpy as np
import torch

from qa_lm.batch import UNTRAINED, Batch
from qa_lm.data.batches.batching import Row
from qa_lm.data.batches.store import EncodedPairs


class Collate:
    """Builds batches: inputs and targets shifted by one, whole examples side by side in their row, then padding.

    Args:
        examples: the encoded pairs that rows speak of.
        train_on_question: whether the question's own tokens carry loss too; the answer's and EOS always do.
        row_tokens: length of every row; None for that of the batch's longest.
    """

    def __init__(self, examples: EncodedPairs, train_on_question: bool, row_tokens: int | None = None) -> None:
        self.examples, self.train_on_question, self.row_tokens = examples, train_on_question, row_tokens

    def __call__(self, rows: list[Row]) -> Batch:
        """The batch of these rows, at least one, some or all of which may hold no examples; one gather for all of
        them, because a Python loop over examples would cost more than Lightning does."""
        sizes = [len(row) for row in rows]
        # Numbers of no examples would be floats.
        indices = np.concatenate(rows).astype(np.int64)
        begins, lengths, prompts = self.examples.spans(indices)  # (pairs,)
        pairs, tokens = len(lengths), int(lengths.sum())
        row_of = np.repeat(np.arange(len(rows)), sizes)
        used = np.bincount(row_of, weights=lengths, minlength=len(rows)).astype(np.int64)
        time = self.row_tokens or max(1, int(used.max()))

        before = np.cumsum(lengths) - lengths  # tokens of the batch before each pair
        row_before = (np.cumsum(used) - used)[row_of]
        pair = np.repeat(np.arange(pairs), lengths)  # (tokens,)
        position = np.arange(tokens) - before[pair]
        source = begins[pair] + position
        place = (row_of * time + before - row_before)[pair] + position
        in_answer = position >= prompts[pair] - 1  # the prompt's last token predicts the answer's first
        trained = in_answer | self.train_on_question

        ids = self.examples.ids
        following = np.where(trained, ids[source + 1].astype(np.int64), UNTRAINED)
        # Padding counts on behind a row's only pair; in a packed row it stays at 0, below any model's last position.
        padding = np.zeros(time, np.int64) if self.row_tokens else np.arange(time)
        shape = (len(rows), time)
        return Batch(
            inputs=_laid(np.zeros(shape, np.int64), place, ids[source]),
            targets=_laid(np.full(shape, UNTRAINED), place, following),
            positions=_laid(np.tile(padding, (len(rows), 1)), place, position),
            pair=_laid(np.full(shape, -1), place, pair),
            in_answer=_laid(np.zeros(shape, bool), place, in_answer),
            indices=torch.from_numpy(indices),
            pairs=pairs,
            tokens=tokens,
        )


def _laid(empty: np.ndarray, place: np.ndarray, values: np.ndarray) -> torch.Tensor:
    empty.ravel()[place] = values
    return torch.from_numpy(empty)

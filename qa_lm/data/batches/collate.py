"""Collate rows of examples into a batch of tensors."""

import numpy as np
import torch

from qa_lm.batch import UNTRAINED, Batch
from qa_lm.data.batches.batching import Row
from qa_lm.data.batches.store import EncodedPairs


class Collate:
    """Builds batches: targets are inputs shifted by one; a row contains whole examples, followed by padding.

    Args:
        examples: the encoded pairs.
        train_on_question: whether the tokens of the question carry loss too; those of the answer and EOS always do.
        row_tokens: length of every row; None for the length of the longest row of each batch.
    """

    def __init__(self, examples: EncodedPairs, train_on_question: bool, row_tokens: int | None = None) -> None:
        self.examples, self.train_on_question, self.row_tokens = examples, train_on_question, row_tokens

    def __call__(self, rows: list[Row]) -> Batch:
        """Build the batch of these rows. There must be at least one row; rows may be empty.

        All examples are gathered at once: a Python loop over them would cost more time than Lightning does.
        """
        sizes = [len(row) for row in rows]
        # Without examples, concatenate returns floats.
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
        in_answer = position >= prompts[pair] - 1  # the last token of the prompt predicts the first of the answer
        trained = in_answer | self.train_on_question

        ids = self.examples.ids
        following = np.where(trained, ids[source + 1].astype(np.int64), UNTRAINED)
        # Positions of padding continue after the only pair of a row; in a packed row they are 0, which is always valid.
        padding = np.zeros(time, np.int64) if self.row_tokens else np.arange(time)
        shape = (len(rows), time)
        return Batch(
            inputs=_scatter(np.zeros(shape, np.int64), place, ids[source]),
            targets=_scatter(np.full(shape, UNTRAINED), place, following),
            positions=_scatter(np.tile(padding, (len(rows), 1)), place, position),
            pair=_scatter(np.full(shape, -1), place, pair),
            in_answer=_scatter(np.zeros(shape, bool), place, in_answer),
            indices=torch.from_numpy(indices),
            pairs=pairs,
            tokens=tokens,
        )


def _scatter(array: np.ndarray, place: np.ndarray, values: np.ndarray) -> torch.Tensor:
    array.ravel()[place] = values
    return torch.from_numpy(array)

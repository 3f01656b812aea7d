"""Collate rows of examples into a batch of tensors."""

import numpy as np
import torch

from qa_lm.batch import UNTRAINED, Batch
from qa_lm.data.batches.batching import Row
from qa_lm.data.batches.rewritten import RewrittenPrompts, fitting, with_prompts
from qa_lm.data.batches.store import EncodedPairs, Spans


class Collate:
    """Builds batches: targets are inputs shifted by one; a row contains whole examples, followed by padding.

    Args:
        examples: the encoded pairs.
        train_on_question: whether the tokens of the question carry loss too; those of the answer and EOS always do.
        row_tokens: length of every row; None for the length of the longest row of each batch.
        rewritten: rewrites a share of the questions in each epoch; None leaves all as they stand.
    """

    def __init__(
        self,
        examples: EncodedPairs,
        train_on_question: bool,
        row_tokens: int | None = None,
        rewritten: RewrittenPrompts | None = None,
    ) -> None:
        self.examples, self.train_on_question, self.row_tokens = examples, train_on_question, row_tokens
        self.rewritten = rewritten

    def __call__(self, rows: list[Row]) -> Batch:
        """Build the batch of these rows. There must be at least one row; rows may be empty.

        All examples are gathered at once: a Python loop over them would cost more time than Lightning does.
        """
        # Without examples, concatenate returns floats.
        indices = np.concatenate([row.examples for row in rows]).astype(np.int64)
        row_of = np.repeat(np.arange(len(rows)), [len(row.examples) for row in rows])  # (pairs,)
        ids, (begins, lengths, prompts) = self._encoded(rows, indices, row_of)
        pairs, tokens = len(lengths), int(lengths.sum())
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

    def _encoded(self, rows: list[Row], indices: np.ndarray, row_of: np.ndarray) -> tuple[np.ndarray, Spans]:
        """Return an array of ids and where the examples are in it, with the rewritten questions that fit."""
        ids, spans = self.examples.ids, self.examples.spans(indices)
        if self.rewritten is None or not len(indices):
            return ids, spans
        prompts = self.rewritten.prompts(indices, np.array([row.epoch for row in rows])[row_of])
        growth = np.zeros(len(indices), np.int64)
        for place, prompt in prompts.items():
            growth[place] = len(prompt) - spans.prompts[place]
        fits = spans.lengths + growth <= min(self.examples.limit, self.rewritten.limit)
        if self.row_tokens:
            used = np.bincount(row_of, weights=spans.lengths, minlength=len(rows))
            fits &= fitting(np.where(fits, growth, 0), row_of, self.row_tokens - used)
        return with_prompts(ids, spans, {place: prompt for place, prompt in prompts.items() if fits[place]})


def _scatter(array: np.ndarray, place: np.ndarray, values: np.ndarray) -> torch.Tensor:
    array.ravel()[place] = values
    return torch.from_numpy(array)

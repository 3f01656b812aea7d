"""Which examples stand in which row of which batch, epoch by epoch.

A row is a tuple of examples: several when packed, one when padded. Every order is a function of seed and epoch alone,
whatever drew random numbers before.
"""

from collections.abc import Iterator

import numpy as np
from torch.utils.data import Sampler

from qa_lm.data.packing import draw_rows, fill, plan_rows

Row = list[int]
BATCHES_ALIKE = 64
"""Padded batches are cut from so many batches' worth of shuffled pairs, sorted by length."""


class RowSampler(Sampler[Row]):
    """The rows of an epoch, each example in exactly one.

    Lightning calls `set_epoch` before each epoch.

    Args:
        indices: the examples, in their own order.
        lengths: inputs of each of them.
        shuffle: whether each epoch has an order of its own; otherwise all have the examples' own.
        seed: seed of the orders.
    """

    def __init__(self, indices: np.ndarray, lengths: np.ndarray, shuffle: bool, seed: int) -> None:
        self.indices, self.lengths = indices, lengths
        self.shuffle, self.seed, self.epoch = shuffle, seed, 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose rows come next."""
        self.epoch = epoch

    def _generator(self) -> np.random.Generator | None:
        return np.random.default_rng([self.seed, self.epoch]) if self.shuffle else None


class PackedRows(RowSampler):
    """Rows of `row_tokens` positions, filled with whole examples.

    The number of rows is the same in every epoch.
    """

    def __init__(self, indices: np.ndarray, lengths: np.ndarray, shuffle: bool, seed: int, row_tokens: int) -> None:
        super().__init__(indices, lengths, shuffle, seed)
        self.plan = plan_rows(self.lengths, row_tokens, seed)

    def __len__(self) -> int:
        return self.plan.rows

    def __iter__(self) -> Iterator[Row]:
        generator = self._generator()
        placed = draw_rows(self.plan, generator)
        order = np.arange(self.plan.rows) if generator is None else generator.permutation(self.plan.rows)
        for row in order:
            yield self.indices[placed[self.plan.begins[row] : self.plan.begins[row + 1]]].tolist()

    @property
    def fill(self) -> float:
        """Share of all positions that hold a token."""
        return fill(self.plan, self.lengths)


class PaddedRows(RowSampler):
    """One example per row; when shuffled, neighbours are of nearly one length, so that little is padding.

    Shuffled pairs are cut into stretches of `BATCHES_ALIKE` batches, each stretch is sorted by length and cut into
    batches, and the batches of the epoch come in random order.
    """

    def __init__(self, indices: np.ndarray, lengths: np.ndarray, shuffle: bool, seed: int, batch_size: int) -> None:
        super().__init__(indices, lengths, shuffle, seed)
        self.batch_size = batch_size

    def __len__(self) -> int:
        return len(self.indices)

    def __iter__(self) -> Iterator[Row]:
        return ([index] for index in self.indices[self._order()].tolist())

    def _order(self) -> np.ndarray:
        generator, count = self._generator(), len(self.indices)
        if generator is None:
            return np.arange(count)
        order = generator.permutation(count)
        if self.batch_size == 1:
            return order
        stretch = np.arange(count) // (BATCHES_ALIKE * self.batch_size)
        order = order[np.lexsort((self.lengths[order], stretch))]
        whole = count // self.batch_size * self.batch_size
        batches = order[:whole].reshape(-1, self.batch_size)
        # The short last batch stays last, else the ones behind it would be cut elsewhere.
        return np.concatenate([generator.permutation(batches).ravel(), order[whole:]])

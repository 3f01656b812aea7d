"""Which examples stand in which row of which batch, epoch by epoch.

A row is a tuple of examples: several when packed, one when padded. Every order is a function of seed and epoch alone,
whatever drew random numbers before.
"""

import itertools
from collections.abc import Iterator

import numpy as np
from torch.utils.data.distributed import DistributedSampler

from qa_lm.data.batches.packing import draw_rows, fill, plan_rows

Row = list[int]
BATCHES_ALIKE = 64
"""Padded batches are cut from so many batches' worth of shuffled pairs, sorted by length."""


class RowSampler(DistributedSampler[Row]):
    """This process's rows of an epoch, each example in exactly one row of one process.

    The rows of all processes, batch by batch, are those of a single process with larger batches; every process has the
    same number of batches. Rows without examples fill what is missing. Lightning calls `set_epoch` before each epoch,
    and leaves a `DistributedSampler`, which this is by name only, as it is: another would deal the rows out again.

    Args:
        indices: the examples, in their own order.
        lengths: inputs of each of them.
        shuffle: whether each epoch has an order of its own; otherwise all have the examples' own.
        seed: seed of the orders.
        batch_size: rows of a batch.
        rank: number of this process, from 0.
        processes: how many there are.
    """

    def __init__(
        self,
        indices: np.ndarray,
        lengths: np.ndarray,
        shuffle: bool,
        seed: int,
        batch_size: int,
        rank: int = 0,
        processes: int = 1,
    ) -> None:
        self.indices, self.lengths = indices, lengths
        self.shuffle, self.seed, self.epoch = shuffle, seed, 0
        self.begin = (0, 0)
        self.batch_size, self.rank, self.processes = batch_size, rank, processes

    @property
    def rows(self) -> int:
        """Rows of all processes together."""
        raise NotImplementedError

    @property
    def batches(self) -> int:
        """Batches of an epoch, of each process."""
        return -(-self.rows // (self.batch_size * self.processes))

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose rows come next."""
        self.epoch = epoch

    def begin_at(self, epoch: int, batches: int) -> None:
        """Go on within an epoch whose first batches have been trained; other epochs are whole."""
        self.epoch, self.begin = epoch, (epoch, batches)

    def __len__(self) -> int:
        together = self.batch_size * self.processes
        whole, rest = divmod(self.rows, together)
        return whole * self.batch_size + (self._last_batch(rest) if rest else 0)

    def __iter__(self) -> Iterator[Row]:
        together = self.batch_size * self.processes
        begin = self.rank * self.batch_size
        trained = self.begin[1] if self.epoch == self.begin[0] else 0
        rows = itertools.islice(self._all_rows(), trained * together, None)
        while batches := list(itertools.islice(rows, together)):
            mine = batches[begin : begin + self.batch_size]
            short = len(batches) < together
            yield from mine
            yield from ([] for _ in range(self._last_batch(len(batches)) - len(mine) if short else 0))

    def first_examples(self, batches: int) -> np.ndarray:
        """Examples of the epoch's first so many batches, of all processes."""
        rows = itertools.islice(self._all_rows(), batches * self.batch_size * self.processes)
        return np.fromiter(itertools.chain.from_iterable(rows), np.int64)

    def _last_batch(self, rest: int) -> int:
        """Rows of this process's last batch, when that many rows are left for all processes."""
        raise NotImplementedError

    def _all_rows(self) -> Iterator[Row]:
        raise NotImplementedError

    def _generator(self) -> np.random.Generator | None:
        return np.random.default_rng([self.seed, self.epoch]) if self.shuffle else None


class PackedRows(RowSampler):
    """Rows of `row_tokens` positions, filled with whole examples.

    The number of rows is the same in every epoch, and every batch has `batch_size` of them, or all rows if they are
    fewer: a compiled network sees one shape.
    """

    def __init__(
        self,
        indices: np.ndarray,
        lengths: np.ndarray,
        shuffle: bool,
        seed: int,
        batch_size: int,
        row_tokens: int,
        rank: int = 0,
        processes: int = 1,
    ) -> None:
        super().__init__(indices, lengths, shuffle, seed, batch_size, rank, processes)
        self.plan = plan_rows(self.lengths, row_tokens, seed)
        # A batch that no number of rows fills would be mostly rows without examples.
        self.batch_size = max(1, min(batch_size, -(-self.plan.rows // processes)))

    @property
    def rows(self) -> int:
        """Rows of all processes together, those without examples not counted."""
        return self.plan.rows

    @property
    def fill(self) -> float:
        """Share of all positions that hold a token."""
        return fill(self.plan, self.lengths)

    def _last_batch(self, rest: int) -> int:
        return self.batch_size

    def _all_rows(self) -> Iterator[Row]:
        generator = self._generator()
        placed = draw_rows(self.plan, generator)
        order = np.arange(self.plan.rows) if generator is None else generator.permutation(self.plan.rows)
        for row in order:
            yield self.indices[placed[self.plan.begins[row] : self.plan.begins[row + 1]]].tolist()


class PaddedRows(RowSampler):
    """One example per row; when shuffled, neighbours are of nearly one length, so that little is padding.

    Shuffled pairs are cut into stretches of `BATCHES_ALIKE` batches, each stretch is sorted by length and cut into
    batches, and the batches of the epoch come in random order.
    """

    @property
    def rows(self) -> int:
        """Rows of all processes together."""
        return len(self.indices)

    def _last_batch(self, rest: int) -> int:
        return min(self.batch_size, max(1, rest - self.rank * self.batch_size))

    def _all_rows(self) -> Iterator[Row]:
        return ([index] for index in self.indices[self._order()].tolist())

    def _order(self) -> np.ndarray:
        generator, count = self._generator(), len(self.indices)
        if generator is None:
            return np.arange(count)
        order = generator.permutation(count)
        together = self.batch_size * self.processes
        if together == 1:
            return order
        stretch = np.arange(count) // (BATCHES_ALIKE * together)
        order = order[np.lexsort((self.lengths[order], stretch))]
        whole = count // together * together
        batches = order[:whole].reshape(-1, together)
        # The short last batch stays last, else the ones behind it would be cut elsewhere.
        return np.concatenate([generator.permutation(batches).ravel(), order[whole:]])

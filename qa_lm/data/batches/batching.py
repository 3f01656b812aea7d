"""Samplers that assign examples to the rows and batches of each epoch.

A row contains several examples when packed, one when padded. The order depends only on seed and epoch, not on the state
of any random number generator.
"""

import itertools
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from torch.utils.data.distributed import DistributedSampler

from qa_lm.data.batches.packing import draw_rows, fill, plan_rows
from qa_lm.data.storage.arrays import BLOCK, blocks, each_block, joined, shuffled

BUCKET_BATCHES = 64
"""Length bucketing: each bucket has the shuffled pairs of 64 batches, sorted by length and then cut into batches."""


class Row(NamedTuple):
    """A row of an epoch."""

    examples: list[int]
    """Indices of its examples."""
    epoch: int = 0
    """Epoch in which it is trained, from 0."""


class RowSampler(DistributedSampler[Row]):
    """The rows of an epoch for this process; each example is in exactly one row of one process.

    Together, the batches of all processes equal those of a single process with larger batches. Every process has the
    same number of batches; empty rows fill the gaps. Lightning calls `set_epoch` before each epoch. The class derives
    from `DistributedSampler` only because Lightning would wrap any other sampler and distribute the rows again.

    Args:
        indices: indices of the examples.
        lengths: number of inputs of each example.
        shuffle: whether each epoch has a different order; otherwise all epochs have the order of `indices`.
        seed: random seed of the orders.
        batch_size: rows per batch.
        rank: rank of this process, from 0.
        processes: number of processes.
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
        """Number of rows over all processes."""
        raise NotImplementedError

    @property
    def batches(self) -> int:
        """Number of batches per epoch and process."""
        return -(-self.rows // (self.batch_size * self.processes))

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch of the next iteration."""
        self.epoch = epoch

    def begin_at(self, epoch: int, batches: int) -> None:
        """Skip the first batches of an epoch, because they are already trained. Other epochs are not affected."""
        self.epoch, self.begin = epoch, (epoch, batches)

    def __len__(self) -> int:
        together = self.batch_size * self.processes
        whole, rest = divmod(self.rows, together)
        return whole * self.batch_size + (self._last_batch(rest) if rest else 0)

    def __iter__(self) -> Iterator[Row]:
        together = self.batch_size * self.processes
        begin = self.rank * self.batch_size
        trained = self.begin[1] if self.epoch == self.begin[0] else 0
        rows = self._all_rows(trained * together)
        while batches := list(itertools.islice(rows, together)):
            mine = batches[begin : begin + self.batch_size]
            short = len(batches) < together
            empty = self._last_batch(len(batches)) - len(mine) if short else 0
            yield from (Row(examples, self.epoch) for examples in [*mine, *([] for _ in range(empty))])

    def first_examples(self, batches: int) -> np.ndarray:
        """Indices of the examples in the first batches of the epoch, over all processes."""
        rows = itertools.islice(self._all_rows(), batches * self.batch_size * self.processes)
        parts = iter(lambda: list(itertools.islice(rows, BUCKET_BATCHES)), [])
        return joined((np.fromiter(itertools.chain.from_iterable(part), np.int64) for part in parts), np.int64)

    def _last_batch(self, rest: int) -> int:
        """Number of rows in this process's last batch, if `rest` rows are left for all processes."""
        raise NotImplementedError

    def _all_rows(self, begin: int = 0) -> Iterator[list[int]]:
        """Indices of the examples of each row from row `begin` of the epoch, over all processes."""
        raise NotImplementedError

    def _generator(self) -> np.random.Generator | None:
        return np.random.default_rng([self.seed, self.epoch]) if self.shuffle else None


class PackedRows(RowSampler):
    """Rows of `row_tokens` positions, filled with whole examples.

    The number of rows is the same in every epoch, and every batch has `batch_size` rows, or all rows if there are
    fewer, so a compiled network sees only one shape.

    Further args:
        row_tokens: positions of a row.
        room: positions that are kept free for each example, in which it may grow.
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
        room: int = 0,
    ) -> None:
        super().__init__(indices, lengths, shuffle, seed, batch_size, rank, processes)
        grown = each_block(lambda part: np.minimum(part + np.int32(room), row_tokens), lengths, np.int32)
        self.plan = plan_rows(grown, row_tokens, seed)
        # A larger batch would consist mostly of empty rows.
        self.batch_size = max(1, min(batch_size, -(-self.plan.rows // processes)))

    @property
    def rows(self) -> int:
        """Number of rows over all processes, without empty rows."""
        return self.plan.rows

    @property
    def fill(self) -> float:
        """Share of the positions that contain a token."""
        return fill(self.plan, self.lengths)

    def _last_batch(self, rest: int) -> int:
        return self.batch_size

    def _all_rows(self, begin: int = 0) -> Iterator[list[int]]:
        generator = self._generator()
        placed = draw_rows(self.plan, generator)
        order = range(self.plan.rows) if generator is None else shuffled(self.plan.rows, generator)
        for row in order[begin:]:
            yield self.indices[placed[self.plan.begins[row] : self.plan.begins[row + 1]]].tolist()


class PaddedRows(RowSampler):
    """One example per row; shuffled epochs use length bucketing, so that little is padding.

    The shuffled pairs are split into buckets of `BUCKET_BATCHES` batches, each bucket is sorted by length and cut into
    batches, and the batches of the epoch are shuffled.
    """

    @property
    def rows(self) -> int:
        """Number of rows over all processes."""
        return len(self.indices)

    def _last_batch(self, rest: int) -> int:
        return min(self.batch_size, max(1, rest - self.rank * self.batch_size))

    def _all_rows(self, begin: int = 0) -> Iterator[list[int]]:
        for places in self._order(begin):
            yield from ([index] for index in self.indices[places].tolist())

    def _order(self, begin: int) -> Iterator[np.ndarray]:
        """Places in `indices`, block by block, from place `begin` of the epoch."""
        generator, count = self._generator(), len(self.indices)
        if generator is None:
            return (np.arange(begin + block.start, begin + block.stop) for block in blocks(count - begin))
        order = shuffled(count, generator)
        together = self.batch_size * self.processes
        if together > 1:
            self._sort_buckets(order, BUCKET_BATCHES * together)
            whole = count // together * together
            batches = order[:whole].reshape(-1, together)
            drawn = shuffled(len(batches), generator)
            # The incomplete last batch stays last; otherwise the batches after it would be cut at other places.
            parts = (batches[drawn[block]].ravel() for block in blocks(len(drawn)))
            order = joined(itertools.chain(parts, [order[whole:]]), np.int64)
        return (order[begin:][block] for block in blocks(count - begin))

    def _sort_buckets(self, order: np.ndarray, bucket: int) -> None:
        """Sort each bucket of this many examples by length, in place; equal lengths keep their order."""
        size = bucket * max(1, BLOCK // bucket)
        for start in range(0, len(order), size):
            part = order[start : start + size]
            part[:] = part[np.lexsort((self.lengths[part], np.arange(len(part)) // bucket))]

"""Group pairs by their 64-bit keys."""

from collections.abc import Iterator, Sequence

import numpy as np

from qa_lm.data.storage.arrays import blocks, counted, joined, zeros

SLICE = 500_000
"""Approximate number of pairs processed at once."""


def slices(columns: Sequence[np.ndarray], indices: np.ndarray | None = None) -> Iterator[tuple[np.ndarray, ...]]:
    """Iterate over pairs by slices of the range of the first column, which is a 64-bit key: equal keys are in the same
    slice, and only one slice is in memory.

    Args:
        columns: the key and further numbers of all pairs, each (all,).
        indices: ascending indices of the pairs; None for all.

    Yields:
        The ascending indices of a slice and the columns of its pairs, each (pairs of the slice,).
    """
    count = len(columns[0]) if indices is None else len(indices)

    def indices_of(block: slice) -> np.ndarray:
        return np.arange(block.start, block.stop, dtype=np.int32) if indices is None else indices[block]

    bits = (count // SLICE).bit_length()
    if not bits:
        places = indices_of(slice(0, count))
        yield (places, *(column[places] for column in columns))
        return
    shift = np.uint64(64 - bits)
    numbers = joined((columns[0][indices_of(block)] >> shift for block in blocks(count)), np.uint16)
    ends = np.cumsum(np.append(counted(numbers), np.zeros(1 << bits, np.int64))[: 1 << bits])
    free = np.append(0, ends[:-1])  # next free place of each slice
    sorted_columns = [zeros(count, kind) for kind in (np.int32, *(column.dtype for column in columns))]
    for block in blocks(count):
        order = np.argsort(numbers[block], kind="stable")
        here = np.bincount(numbers[block], minlength=len(ends))
        target = (free - (np.cumsum(here) - here))[numbers[block][order]] + np.arange(len(order))
        places = indices_of(block)[order]
        for filled, values in zip(sorted_columns, (places, *(column[places] for column in columns)), strict=True):
            filled[target] = values
        free += here
    for begin, end in zip(np.append(0, ends[:-1]).tolist(), ends.tolist(), strict=True):
        yield tuple(np.array(column[begin:end]) for column in sorted_columns)


def sort_by(outer: np.ndarray, inner: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Sort pairs by two keys.

    Returns:
        order: indices that sort by `outer` and then by `inner`; equal pairs keep their order.
        outer_begins: whether a new value of `outer` begins at this place of the order, bool.
        inner_begins: whether a new combination of `outer` and `inner` begins there, bool.
    """
    order = np.lexsort((inner, outer))
    outer, inner = outer[order], inner[order]
    outer_begins = np.ones(len(order), bool)
    outer_begins[1:] = outer[1:] != outer[:-1]
    inner_begins = outer_begins.copy()
    inner_begins[1:] |= inner[1:] != inner[:-1]
    return order, outer_begins, inner_begins


def smallest_of_group(groups: np.ndarray, keys: np.ndarray) -> np.ndarray:
    """The smallest key of each pair's group, (pairs,).

    Args:
        groups: number of each pair's group, from 0.
        keys: key of each pair.
    """
    smallest = np.full(groups.max() + 1, np.iinfo(np.uint64).max, np.uint64)
    np.minimum.at(smallest, groups, keys)
    return smallest[groups]

"""Group pairs by their 64-bit keys."""

from collections.abc import Iterator

import numpy as np

SLICE = 500_000
"""Approximate number of pairs processed at once."""


def slices(keys: np.ndarray, indices: np.ndarray | None = None) -> Iterator[np.ndarray]:
    """Iterate over ascending indices of pairs, by slices of the key range: equal keys are in the same slice, and only
    one slice has to be in memory."""
    whole = np.arange(len(keys)) if indices is None else indices
    bits = (len(whole) // SLICE).bit_length()
    if not bits:
        yield whole
        return
    slice_of = ((keys if indices is None else keys[indices]) >> np.uint64(64 - bits)).astype(np.uint16)
    for number in range(1 << bits):
        yield whole[slice_of == number]


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

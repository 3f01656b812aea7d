"""Near-duplicate questions: MinHash finds candidates, their exact overlap decides, and chains of near ones are groups.

Two questions are near when the sets of their four-letter pieces share at least `NEAR` of all pieces (Jaccard).
MinHash (Broder 1997) with bands finds candidates without comparing all pairs; its signatures come from datasketch,
exact overlaps and groups from scipy. The groups are a function of the set of questions, not of their order.
"""

import hashlib
from collections.abc import Iterable, Iterator
from functools import lru_cache

import numpy as np
from datasketch import MinHash
from scipy.sparse import coo_array, csr_array
from scipy.sparse.csgraph import connected_components

from qa_lm.data.pairs import normalise_question

NEAR = 0.75
PIECE = 4
BANDS, BAND = 24, 5
"""Bands and values in each: two questions at 0.75 are no candidates with probability 0.002, at 0.9 with 1e-9."""
NEIGHBOURS, COMPARISONS = 8, 1_000_000
"""Each question is compared with at least so many of those that are equal in a band, and with more in smaller files:
up to so many comparisons in each band. Where more are equal, as in a hundred thousand questions made from one template,
two near ones can be missed that no chain of others joins."""
CHUNK = 20_000
"""Questions, or candidates, handled at once."""


def near_groups(questions: Iterable[str], keys: np.ndarray) -> np.ndarray:
    """A number for each question, equal for those that a chain of near ones joins, (questions,) int32.

    Takes about 400 bytes of memory for each different question.

    Args:
        questions: the texts.
        keys: a key of each normalised question, (questions,) uint64.
    """
    different, first, which = np.unique(keys, return_index=True, return_inverse=True)
    bands, rows = _described(questions, first)
    sizes = np.diff(rows.indptr)
    groups = np.arange(len(different), dtype=np.int32)
    for number in range(BANDS):
        for one, other in _candidates(bands[:, number], bands[:, (number + 1) % BANDS]):
            apart = groups[one] != groups[other]
            one, other = one[apart], other[apart]
            near = np.concatenate([np.zeros(0, bool), *_near(one, other, rows, sizes)])
            groups = _joined(groups, one[near], other[near])
    return groups[which]


def _near(one: np.ndarray, other: np.ndarray, rows: csr_array, sizes: np.ndarray) -> Iterator[np.ndarray]:
    """Whether each of the candidates is near, a chunk at a time."""
    for begin in range(0, len(one), CHUNK):
        a, b = one[begin : begin + CHUNK], other[begin : begin + CHUNK]
        shared = (rows[a] * rows[b]).sum(axis=1)
        yield shared >= NEAR * (sizes[a] + sizes[b] - shared)


def _joined(groups: np.ndarray, one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """The groups with those of `one` and `other` made the same."""
    count = len(groups)
    graph = coo_array((np.ones(len(one), np.int8), (groups[one], groups[other])), shape=(count, count))
    return connected_components(graph, directed=False)[1][groups]


def _described(questions: Iterable[str], wanted: np.ndarray) -> tuple[np.ndarray, csr_array]:
    """Band keys (wanted, BANDS) uint64 and pieces, a row of ones per question, in the order of `wanted`."""
    is_wanted = set(wanted.tolist())
    bands, ids, sizes = [np.zeros((0, BANDS), np.uint64)], [np.zeros(0, np.int32)], [0]
    chunk: list[np.ndarray] = []

    def flush() -> None:
        signatures = [each.hashvalues for each in MinHash.bulk(chunk, num_perm=BANDS * BAND, hashfunc=int)]
        if chunk:
            bands.append(_band_keys(np.stack(signatures).astype(np.uint64)))
            ids.extend(chunk)
            sizes.extend(map(len, chunk))
        chunk.clear()

    for place, question in enumerate(questions):
        if place in is_wanted:
            chunk.append(hashed_pieces(normalise_question(question)))
            if len(chunk) == CHUNK:
                flush()
    flush()
    columns = np.concatenate(ids)
    rows = csr_array((np.ones(len(columns), np.int32), columns, np.cumsum(sizes)), shape=(len(sizes) - 1, 1 << 30))
    in_order = np.argsort(np.argsort(wanted))  # they came in the order of the texts
    return np.concatenate(bands)[in_order], rows[in_order]


def pieces(text: str) -> set[str]:
    """The different four-letter pieces of a text; a shorter text is one piece."""
    return {text[i : i + PIECE] for i in range(max(1, len(text) - PIECE + 1))}


def hashed_pieces(text: str) -> np.ndarray:
    """Hashes of the text's different pieces, ascending, int32 from 0."""
    return np.array(sorted({_piece_hash(piece) for piece in pieces(text)}), np.int32)


@lru_cache(maxsize=1 << 20)
def _piece_hash(piece: str) -> int:
    return int.from_bytes(hashlib.blake2b(piece.encode(), digest_size=4).digest(), "little") >> 2


def _band_keys(signatures: np.ndarray) -> np.ndarray:
    """One number for each band of a signature; unequal bands share one by accident about once in 1e19."""
    banded = signatures.reshape(len(signatures), BANDS, BAND)
    keys = np.zeros(banded.shape[:2], np.uint64)
    with np.errstate(over="ignore"):
        for value in range(BAND):
            keys = (keys ^ banded[:, :, value]) * np.uint64(0x9E3779B97F4A7C15)
            keys ^= keys >> np.uint64(29)
    return keys


def _candidates(band: np.ndarray, next_band: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Questions equal in a band, int32: those side by side among the equal, then those two apart, and so on.

    Those equal in the next band too stand side by side, because where thousands are equal not all can be compared.
    """
    order = np.lexsort((next_band, band)).astype(np.int32)
    band = band[order]
    for distance in range(1, max(NEIGHBOURS, COMPARISONS // max(len(band), 1)) + 1):
        after = np.flatnonzero(band[distance:] == band[:-distance]) + distance
        if not len(after):
            return
        yield order[after - distance], order[after]

"""Near-duplicate questions: MinHash finds candidates, their exact Jaccard similarity decides, and connected questions
form groups.

Two questions are near-duplicates if the Jaccard similarity of their sets of character 4-grams is at least `NEAR`.
MinHash (Broder 1997) with banding finds candidates without comparing all pairs. Signatures come from datasketch, exact
similarities and groups from scipy. The groups depend only on the set of questions, not on their order.
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
"""Number of bands, and values per band. Two questions with similarity 0.75 are missed with probability 0.002, with
similarity 0.9 with probability 1e-9."""
NEIGHBOURS, COMPARISONS = 8, 1_000_000
"""Each question is compared with at least `NEIGHBOURS` of the questions that are equal in a band, and in small files
with more, up to `COMPARISONS` comparisons per band. If more are equal, as for a hundred thousand questions made from
one template, near-duplicates that are not connected through others can be missed."""
CHUNK = 20_000
"""Number of questions or candidates processed at once."""


def near_groups(questions: Iterable[str], keys: np.ndarray) -> np.ndarray:
    """Group number of each question; connected near-duplicates have the same number, (questions,), int32.

    Takes about 400 bytes of memory per different question.

    Args:
        questions: the texts.
        keys: key of each normalised question, (questions,), uint64.
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
    """Whether each candidate pair is a near-duplicate, chunk by chunk."""
    for begin in range(0, len(one), CHUNK):
        a, b = one[begin : begin + CHUNK], other[begin : begin + CHUNK]
        shared = (rows[a] * rows[b]).sum(axis=1)
        yield shared >= NEAR * (sizes[a] + sizes[b] - shared)


def _joined(groups: np.ndarray, one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Merge the groups of `one` and `other`."""
    count = len(groups)
    graph = coo_array((np.ones(len(one), np.int8), (groups[one], groups[other])), shape=(count, count))
    return connected_components(graph, directed=False)[1][groups]


def _described(questions: Iterable[str], wanted: np.ndarray) -> tuple[np.ndarray, csr_array]:
    """Band keys, (wanted, BANDS), uint64, and 4-grams as sparse rows of ones, in the order of `wanted`."""
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
    in_order = np.argsort(np.argsort(wanted))  # so far they are in the order of the texts
    return np.concatenate(bands)[in_order], rows[in_order]


def pieces(text: str) -> set[str]:
    """The set of character 4-grams of a text; a shorter text is one piece."""
    return {text[i : i + PIECE] for i in range(max(1, len(text) - PIECE + 1))}


def hashed_pieces(text: str) -> np.ndarray:
    """Hashes of the set of 4-grams of a text, ascending, int32, not negative."""
    return np.array(sorted({_piece_hash(piece) for piece in pieces(text)}), np.int32)


@lru_cache(maxsize=1 << 20)
def _piece_hash(piece: str) -> int:
    return int.from_bytes(hashlib.blake2b(piece.encode(), digest_size=4).digest(), "little") >> 2


def _band_keys(signatures: np.ndarray) -> np.ndarray:
    """A hash of each band of a signature; collisions have a probability of about 1e-19."""
    banded = signatures.reshape(len(signatures), BANDS, BAND)
    keys = np.zeros(banded.shape[:2], np.uint64)
    with np.errstate(over="ignore"):
        for value in range(BAND):
            keys = (keys ^ banded[:, :, value]) * np.uint64(0x9E3779B97F4A7C15)
            keys ^= keys >> np.uint64(29)
    return keys


def _candidates(band: np.ndarray, next_band: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Pairs of questions that are equal in a band, int32: neighbours in sorted order first, then those two apart, etc.

    Sorting by the next band too puts the most similar questions next to each other, because not all of thousands of
    equal questions can be compared.
    """
    order = np.lexsort((next_band, band)).astype(np.int32)
    band = band[order]
    for distance in range(1, max(NEIGHBOURS, COMPARISONS // max(len(band), 1)) + 1):
        after = np.flatnonzero(band[distance:] == band[:-distance]) + distance
        if not len(after):
            return
        yield order[after - distance], order[after]

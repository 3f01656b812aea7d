"""Near-duplicate questions: MinHash finds candidates, their exact Jaccard similarity decides, and connected questions
form groups.

Two questions are near-duplicates if the Jaccard similarity of their sets of character 4-grams is at least `NEAR`.
MinHash (Broder 1997) with banding finds candidates without comparing all pairs. The groups depend only on the set of
questions, not on their order.
"""

from collections.abc import Iterable, Iterator
from itertools import compress, islice

import numpy as np
from scipy.sparse import coo_array, csr_array, vstack
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
    # They take a second to import, and what `ask.py` and a server need of this module does not need them.
    from datasketch import MinHash
    from sklearn.feature_extraction.text import HashingVectorizer

    hasher = HashingVectorizer(
        analyzer=pieces, n_features=1 << 30, alternate_sign=False, binary=True, norm=None, dtype=np.int32
    )
    bands, rows = [np.zeros((0, BANDS), np.uint64)], [csr_array((0, 1 << 30), dtype=np.int32)]
    is_wanted = np.zeros(len(wanted) and wanted.max() + 1, bool)
    is_wanted[wanted] = True
    texts = compress(questions, is_wanted)
    while chunk := list(islice(texts, CHUNK)):
        rows.append(csr_array(hasher.transform(chunk)))
        hashes = np.split(rows[-1].indices, rows[-1].indptr[1:-1])
        signatures = [each.hashvalues for each in MinHash.bulk(hashes, num_perm=BANDS * BAND, hashfunc=int)]
        bands.append(_band_keys(np.stack(signatures).astype(np.uint64)))
    in_order = np.argsort(np.argsort(wanted))  # so far they are in the order of the texts
    return np.concatenate(bands)[in_order], vstack(rows, format="csr")[in_order]


def pieces(text: str) -> set[str]:
    """The set of character 4-grams of a normalised text; a shorter text is one piece."""
    text = normalise_question(text)
    return {text[i : i + PIECE] for i in range(max(1, len(text) - PIECE + 1))}


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

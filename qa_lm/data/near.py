"""Near-duplicate questions: MinHash signatures, banded, and joined into groups.

Two questions are near when the sets of their four-letter pieces share at least `NEAR` of all pieces (Jaccard).
MinHash (Broder 1997) estimates that share from the part of the signature that is equal; bands of it find the
candidates without comparing all pairs. Signatures come from datasketch, groups from scipy.
"""

from collections.abc import Iterable, Iterator

import numpy as np
from datasketch import MinHash
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from qa_lm.data.pairs import normalised_question

NEAR = 0.75
PIECE = 4
PERMUTATIONS = 96
BANDS = 16
"""Bands of 6 values: a pair at 0.75 is missed with probability 0.04, one at 0.9 with 1e-5."""
CHUNK = 20_000


def near_groups(questions: Iterable[str]) -> np.ndarray:
    """A number for each question, equal for those that a chain of near ones joins, (questions,) int32."""
    signatures = np.concatenate([np.zeros((0, PERMUTATIONS), np.uint32), *_signatures(questions)])
    count = len(signatures)
    left, right = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    for band in np.split(signatures, BANDS, axis=1):
        first, second = _neighbours(band)
        near = (signatures[first] == signatures[second]).mean(1) >= NEAR
        left.append(first[near])
        right.append(second[near])
    rows, columns = np.concatenate(left), np.concatenate(right)
    graph = coo_array((np.ones(len(rows), np.int8), (rows, columns)), shape=(count, count))
    return connected_components(graph, directed=False)[1]


def _signatures(questions: Iterable[str]) -> Iterator[np.ndarray]:
    chunk: list[list[bytes]] = []
    for question in questions:
        text = normalised_question(question)
        chunk.append([text[i : i + PIECE].encode() for i in range(max(1, len(text) - PIECE + 1))])
        if len(chunk) == CHUNK:
            yield _hashed(chunk)
            chunk = []
    if chunk:
        yield _hashed(chunk)


def _hashed(pieces: list[list[bytes]]) -> np.ndarray:
    return np.stack([each.hashvalues for each in MinHash.bulk(pieces, num_perm=PERMUTATIONS)]).astype(np.uint32)


def _neighbours(band: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of questions equal in a band: each with the next one, and with the first, of those that are equal."""
    rows = np.ascontiguousarray(band).view(np.dtype((np.void, band.dtype.itemsize * band.shape[1]))).ravel()
    _, bucket = np.unique(rows, return_inverse=True)
    order = np.argsort(bucket, kind="stable")
    same = bucket[order][1:] == bucket[order][:-1]
    begins = np.flatnonzero(np.concatenate([[True], ~same]))
    first = order[np.repeat(begins, np.diff(np.append(begins, len(order))))]
    after = np.flatnonzero(same) + 1
    return np.concatenate([order[after - 1], first[after]]), np.concatenate([order[after], order[after]])

"""Whether a pair's answer resembles the answers of the pairs that its question resembles.

Texts are alike by their four-letter pieces, rare pieces counting more (the cosine of tf-idf vectors). A pair has a row
of likenesses of its question to all other questions, and another of its answer to all other answers: the correlation
of the two rows is the pair's accord. An answer put to a foreign question has none; where answers have nothing to do
with their questions' words, hardly a pair has any.
"""

from collections.abc import Sequence
from itertools import islice

import numpy as np
from scipy.sparse import csr_array, diags_array

from qa_lm.data.pairs import normalise_question
from qa_lm.data.quality.near import hashed_pieces
from qa_lm.data.table import PairTable

BLOCK = 8192
"""Pairs compared with one another at most: neighbours in the file, so that time grows with their number only."""
ROWS = 512
"""Pairs whose likenesses are in memory at once."""


def accord_of(table: PairTable, indices: np.ndarray) -> np.ndarray:
    """The accord of each of these pairs within its block, from -1 to 1, (pairs,) float32.

    Args:
        table: all pairs.
        indices: places of the pairs that are looked at, ascending.
    """
    texts = table.texts(indices)
    blocks = np.array_split(indices, max(1, -(-len(indices) // BLOCK)))  # of nearly one size
    return np.concatenate([_accord(list(islice(texts, len(block)))) for block in blocks])


def _accord(texts: Sequence[tuple[str, str]]) -> np.ndarray:
    if not texts:
        return np.zeros(0, np.float32)
    sides = [_vectors([normalise_question(text) for text in side]) for side in zip(*texts, strict=True)]
    found = []
    for begin in range(0, len(texts), ROWS):
        rows = np.arange(begin, min(begin + ROWS, len(texts)))
        one, other = (_standard(side, rows) for side in sides)
        found.append(np.einsum("ij,ij->i", one, other))
    return np.concatenate(found)


def _vectors(texts: Sequence[str]) -> csr_array:
    """Unit vectors of pieces, (texts, pieces)."""
    found = [hashed_pieces(text) for text in texts]
    different, column = np.unique(np.concatenate(found), return_inverse=True)
    begins = np.cumsum([0, *map(len, found)])
    weight = np.log(len(texts) / np.bincount(column)).astype(np.float32)
    vectors = csr_array((weight[column], column, begins), shape=(len(texts), len(different)))
    lengths = np.sqrt((vectors * vectors).sum(axis=1))
    return diags_array(1 / np.maximum(lengths, 1e-6)) @ vectors


def _standard(vectors: csr_array, rows: np.ndarray) -> np.ndarray:
    """Likenesses of these texts to all others, each row with mean 0 and length 1; all 0 where they are all equal."""
    alike = (vectors[rows] @ vectors.T).toarray()
    alike[np.arange(len(rows)), rows] = 0
    alike -= alike.mean(axis=1, keepdims=True)
    return alike / np.maximum(np.linalg.norm(alike, axis=1, keepdims=True), 1e-6)

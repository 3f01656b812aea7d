"""Answer consistency: do similar questions have similar answers?

Similarity is the cosine of TF-IDF vectors of character 4-grams. The consistency of a pair is the correlation between
the similarities of its question to all other questions and those of its answer to all other answers. An answer that
belongs to another question has a low consistency. If answers share no words with their questions' topic, nearly all
pairs have a low one.
"""

from collections.abc import Sequence
from itertools import islice

import numpy as np
from scipy.sparse import csr_array, diags_array

from qa_lm.data.pairs import normalise_question
from qa_lm.data.quality.near import hashed_pieces
from qa_lm.data.table import PairTable

BLOCK = 8192
"""Maximum number of pairs compared with one another: neighbours in the file, so that time is linear in their number."""
ROWS = 512
"""Pairs whose similarities are in memory at once."""


def answer_consistency(table: PairTable, indices: np.ndarray) -> np.ndarray:
    """Answer consistency of these pairs, each within its block, from -1 to 1, (pairs,), float32.

    Args:
        table: all pairs.
        indices: indices of the pairs, ascending.
    """
    texts = (pair[:2] for pair in table.texts(indices))
    blocks = np.array_split(indices, max(1, -(-len(indices) // BLOCK)))  # blocks of nearly equal size
    return np.concatenate([_consistency(list(islice(texts, len(block)))) for block in blocks])


def _consistency(texts: Sequence[tuple[str, str]]) -> np.ndarray:
    if not texts:
        return np.zeros(0, np.float32)
    sides = [_vectors([normalise_question(text) for text in side]) for side in zip(*texts, strict=True)]
    correlations = []
    for start in range(0, len(texts), ROWS):
        rows = np.arange(start, min(start + ROWS, len(texts)))
        questions, answers = (_standardised_similarities(side, rows) for side in sides)
        correlations.append(np.einsum("ij,ij->i", questions, answers))
    return np.concatenate(correlations)


def _vectors(texts: Sequence[str]) -> csr_array:
    """Unit TF-IDF vectors, (texts, 4-grams)."""
    hashes = [hashed_pieces(text) for text in texts]
    unique, column = np.unique(np.concatenate(hashes), return_inverse=True)
    starts = np.cumsum([0, *map(len, hashes)])
    weight = np.log(len(texts) / np.bincount(column)).astype(np.float32)
    vectors = csr_array((weight[column], column, starts), shape=(len(texts), len(unique)))
    lengths = np.sqrt((vectors * vectors).sum(axis=1))
    return diags_array(1 / np.maximum(lengths, 1e-6)) @ vectors


def _standardised_similarities(vectors: csr_array, rows: np.ndarray) -> np.ndarray:
    """Similarities of these texts to all others; each row has mean 0 and norm 1, or is 0 if all are equal."""
    similarities = (vectors[rows] @ vectors.T).toarray()
    similarities[np.arange(len(rows)), rows] = 0
    similarities -= similarities.mean(axis=1, keepdims=True)
    return similarities / np.maximum(np.linalg.norm(similarities, axis=1, keepdims=True), 1e-6)

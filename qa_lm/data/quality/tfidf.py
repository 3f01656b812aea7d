"""TF-IDF vectors of texts (Salton and Buckley 1988), with the numbers of scikit-learn.

A server and `ask.py` need no more of scikit-learn, whose import would take a quarter of their start.
"""

from array import array
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence

import numpy as np
from scipy.sparse import csr_array

Terms = Callable[[str], Iterable[str]]
"""The terms of a text, each as often as it occurs."""
ROWS = 4096
"""Vectors that are divided at once."""


class TermCounts:
    """Counts how often the terms of some texts occur in texts; other terms are not counted.

    Args:
        texts: some texts.
        terms: the terms of a text.
    """

    def __init__(self, texts: Sequence[str], terms: Terms) -> None:
        self.terms = terms
        found: defaultdict[str, int] = defaultdict()
        found.default_factory = found.__len__
        counts = _counts((Counter(map(found.__getitem__, terms(text))) for text in texts), len(texts), found)
        self.numbers = {term: number for number, term in enumerate(sorted(found))}  # for any order of the texts
        places = np.array([self.numbers[term] for term in found], np.int32)
        self.of_texts = csr_array((counts.data, places[counts.indices], counts.indptr), counts.shape)
        """The counts of these texts, (texts, terms), float32."""
        self.of_texts.sort_indices()

    def __call__(self, texts: Sequence[str]) -> csr_array:
        """The counts of these texts, (texts, terms), float32."""
        numbers = self.numbers
        known = ([numbers[term] for term in self.terms(text) if term in numbers] for text in texts)
        counts = _counts(map(Counter, known), len(texts), numbers)
        counts.sort_indices()
        return counts


def _counts(rows: Iterable[Counter[int]], count: int, numbers: dict[str, int]) -> csr_array:
    columns, values, ends = array("i"), array("f"), [0]
    for row in rows:
        columns.extend(row.keys())
        values.extend(row.values())
        ends.append(len(columns))
    index = np.int32 if len(columns) <= np.iinfo(np.int32).max else np.int64
    content = np.asarray(values), np.asarray(columns, index), np.array(ends, index)
    return csr_array(content, shape=(count, len(numbers)))


class TfIdf:
    """Unit TF-IDF vectors; the weight of a term is 1 + ln((1 + texts) / (1 + texts with the term)).

    Args:
        counts: the counts of the texts that give the weights.
        sublinear: whether a term that occurs n times counts as 1 + ln(n).
    """

    def __init__(self, counts: csr_array, sublinear: bool = False) -> None:
        self.sublinear = sublinear
        occurs = np.bincount(counts.indices, minlength=counts.shape[1]).astype(np.float32)
        self.weights = np.log(np.float32(1 + counts.shape[0]) / (1 + occurs)) + 1
        """Weight of each term, (terms,), float32."""

    def __call__(self, counts: csr_array) -> csr_array:
        """Vectors by the counts of texts, (texts, terms), float32; a text without terms has the vector 0."""
        values = np.log(counts.data) + 1 if self.sublinear else counts.data
        return unit(csr_array((values * self.weights[counts.indices], counts.indices, counts.indptr), counts.shape))


def unit(vectors: csr_array) -> csr_array:
    """The rows divided by their Euclidean norm; a row of zeros stays as it is."""
    values, lengths = vectors.data.copy(), np.diff(vectors.indptr)
    for begin in range(0, len(lengths), ROWS):
        length = lengths[begin : begin + ROWS]
        part = values[vectors.indptr[begin] : vectors.indptr[begin + len(length)]]
        rows = np.repeat(np.arange(len(length)), length)
        norms = np.sqrt(np.bincount(rows, part * part, len(length)))  # float64
        part /= np.where(norms == 0, 1, norms)[rows]
    return csr_array((values, vectors.indices, vectors.indptr), vectors.shape)

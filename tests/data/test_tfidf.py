"""TF-IDF vectors are those of scikit-learn, bit for bit."""

import numpy as np
import pytest
from sklearn.feature_extraction.text import CountVectorizer, TfidfTransformer, TfidfVectorizer
from sklearn.preprocessing import normalize

from qa_lm.data.quality.near import pieces
from qa_lm.data.quality.tfidf import TermCounts, TfIdf, unit
from qa_lm.retrieval.similarity import _plain, _terms, _tfidf
from tests.conftest import builtin

PAIRS = builtin("capitals")[:200]
TEXTS = [f"{pair.question} {pair.answer}" for pair in PAIRS] + ["", "?!", "a", "a a a, a", "Ç a ñandú", "東京はどこ?"]
OTHERS = ["What is the capital of Atlantis?", "", "zzz", "a", "東京", "capital capital capital"]


def same(ours, theirs):
    assert ours.dtype == theirs.dtype == np.float32
    assert ours.shape == theirs.shape
    assert (ours.toarray() == theirs.toarray()).all()


def test_pieces_of_words():
    options = {"preprocessor": _plain, "analyzer": "char_wb", "ngram_range": (2, 4), "sublinear_tf": True}
    theirs = TfidfVectorizer(**options, dtype=np.float32).fit(TEXTS)
    ours = _tfidf(TEXTS)
    assert [*TermCounts(TEXTS, _terms).numbers] == theirs.get_feature_names_out().tolist()
    for texts in (TEXTS, OTHERS):
        same(ours(texts), theirs.transform(texts))


def test_sets_of_pieces():
    counter = CountVectorizer(analyzer=pieces, binary=True, dtype=np.float32)
    theirs, ours = counter.fit_transform(TEXTS), TermCounts(TEXTS, pieces)
    weigher = TfidfTransformer().fit(theirs)
    weigh = TfIdf(ours.of_texts)
    assert (weigh.weights == weigher.idf_).all()
    for texts in (TEXTS, OTHERS):
        same(ours(texts), counter.transform(texts))
        same(weigh(ours(texts)), weigher.transform(counter.transform(texts)))
    same(ours.of_texts, theirs)
    same(unit(ours.of_texts), normalize(theirs))


@pytest.mark.parametrize("texts", [["?", ""], ["!"]])
def test_texts_without_terms_resemble_nothing(texts):
    vectors = _tfidf(texts)
    assert (vectors(["What?"]) @ vectors(texts).T).toarray().tolist() == [[0.0] * len(texts)]

"""Known pairs are read as they were written, and a damaged file is one error."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qa_lm.errors import UserError
from qa_lm.retrieval import known_pairs
from qa_lm.retrieval.known_pairs import FILE, KnownPairs, sample_indices

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
AWKWARD = ["a\u2028b\u2029c", "line\nbreak\r\nand\rmore", "\U0001f389\U0001f468\u200d\U0001f469\u200d\U0001f467"]
AWKWARD += ["\"quoted\" \\ and ''", "\x00\x07\x85\x1c", "", " ", "{}", "\ufeff"]


@given(st.lists(st.tuples(TEXT, TEXT), min_size=1, max_size=5))
def test_texts_come_back(tmp_path_factory, pairs):
    folder = tmp_path_factory.mktemp("pairs")
    KnownPairs(*map(list, zip(*pairs, strict=True))).save(folder)
    found = KnownPairs.load(folder)
    assert found
    assert list(zip(found.questions, found.answers, strict=True)) == pairs


def test_awkward_texts_come_back(tmp_path):
    KnownPairs(AWKWARD, AWKWARD[::-1]).save(tmp_path)
    assert KnownPairs.load(tmp_path) == KnownPairs(AWKWARD, AWKWARD[::-1])


def test_a_folder_without_pairs(tmp_path):
    assert KnownPairs.load(tmp_path) is None


LINE = json.dumps({"question": "Q", "answer": "A"}).encode() + b"\n"


@pytest.mark.parametrize(
    "content",
    [
        *(b"", b"\n", LINE + b"\n" + LINE, LINE + LINE[:-5], LINE[:-2], b"[" * 100_000, b"\xff\xfe" + LINE),
        *(
            b"[]\n",
            b"null\n",
            b"7\n",
            b'"text"\n',
            b"{}\n",
            b'{"question": "Q"}\n',
            b'{"question": 1, "answer": "A"}\n',
        ),
        *(b'{"question": "Q", "answer": null}\n', b'{"question": ["Q"], "answer": "A"}\n', b"1" * 5000 + b"\n"),
        b'{"question": "Q", "answer": "\\ud800"}\n',
    ],
)
def test_a_damaged_file_is_one_error(tmp_path, content):
    (tmp_path / FILE).write_bytes(content)
    with pytest.raises(UserError, match=r"known_pairs\.jsonl: is not a valid list of pairs: .+") as caught:
        KnownPairs.load(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_folder_in_place_of_the_file(tmp_path):
    (tmp_path / FILE).mkdir()
    with pytest.raises(UserError, match="is not a valid list of pairs"):
        KnownPairs.load(tmp_path)


def test_answers_are_counted_once_in_the_order_of_their_first_question():
    pairs = KnownPairs(["a", "b", "c", "d"], ["Y", "X", "Y", "Z"])
    assert pairs.distinct == ["Y", "X", "Z"]
    assert pairs.answer_of.tolist() == [0, 1, 0, 2]
    assert pairs.texts == ["a Y", "b X", "c Y", "d Z"]


@pytest.mark.parametrize(("answers", "shares"), [("XYZ", False), ("XXYZ", False), ("XXY", True), ("XXX", True)])
def test_pairs_share_answers_from_three_questions_for_two(answers, shares):
    assert KnownPairs(["q"] * len(answers), list(answers)).shares_answers is shares


def test_of_very_many_pairs_evenly_spaced_ones_are_kept(monkeypatch):
    monkeypatch.setattr(known_pairs, "MAX_PAIRS", 4)
    assert sample_indices(0).tolist() == []
    assert sample_indices(3).tolist() == [0, 1, 2]
    assert sample_indices(10).tolist() == [0, 3, 6, 9]

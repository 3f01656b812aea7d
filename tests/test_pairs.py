"""Files of pairs: what is read, and what is said of a bad one."""

import csv
import random

import pytest

from qa_lm.data.pairs import Pair, builtin_pairs, fingerprint, read_pairs
from qa_lm.data.splits import shuffled_split
from qa_lm.errors import UserError

GOOD = '{"question": "a?", "answer": "b"}\n'


def write(tmp_path, content, name="pairs.jsonl"):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def test_jsonl(tmp_path):
    content = '\ufeff{"question": "a?", "answer": "b\\u2028c", "id": 3}\r\n\n{"question": "누구?", "answer": "🙂"}'
    assert read_pairs(write(tmp_path, content)) == [Pair("a?", "b\u2028c"), Pair("누구?", "🙂")]


def test_csv(tmp_path):
    path = tmp_path / "pairs.csv"
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(
            [["id", "answer", "question"], [1, "two\nlines", "a?"], [], [2, 'say "no"', "b, c?"]]
        )
    assert read_pairs(path) == [Pair("a?", "two\nlines"), Pair("b, c?", 'say "no"')]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (GOOD + "{oops}\n", ":2: not JSON"),
        (GOOD + "\n[1]\n", ":3: expected .* found list"),
        (GOOD + '{"question": "a?"}\n', ":2: no answer; found the keys question"),
        (GOOD + '{"question": " ", "answer": "b"}\n', ":2: the question is empty"),
        (GOOD + '{"question": "a", "answer": ""}\n', ":2: the answer is empty"),
        (GOOD + '{"question": "a", "answer": 3}\n', ":2: the answer must be text, found 3"),
        (GOOD + '{"question": "a", "answer": "\\ud800"}\n', ":2: the answer holds half of a surrogate"),
        (GOOD + "[" * 100_000 + "\n", ":2: not JSON"),
        (GOOD.encode() + b'{"question": "\xff", "answer": "b"}\n', ":2: not UTF-8 .byte 0xff"),
        (GOOD, "1 pair; at least two"),
        ("", "no pairs; at least two"),
    ],
)
def test_bad_jsonl_is_named_by_file_and_line(tmp_path, content, message):
    with pytest.raises(UserError, match=message) as error:
        read_pairs(write(tmp_path, content))
    assert "pairs.jsonl" in str(error.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("frage,answer\na,b\n", ":1: no column question; the header has frage, answer"),
        ("", ":1: no column question and no column answer"),
        ('question,answer\na,"two\nlines"\nb,c,d\n', ":4: 3 fields where the header has 2"),
        ("question,answer\na,b\nc,\n", ":3: the answer is empty"),
        ('question,answer\na,b\nc,"open\n', ":3: not CSV"),
    ],
)
def test_bad_csv_is_named_by_file_and_line(tmp_path, content, message):
    with pytest.raises(UserError, match=message):
        read_pairs(write(tmp_path, content, "pairs.csv"))


def test_missing_file_and_unknown_format(tmp_path):
    with pytest.raises(UserError, match="none.jsonl: cannot be read: No such file"):
        read_pairs(tmp_path / "none.jsonl")
    with pytest.raises(UserError, match=r"must end in .jsonl or .csv"):
        read_pairs(write(tmp_path, GOOD, "pairs.txt"))
    with pytest.raises(UserError, match="no such pairs; there is tutorial"):
        builtin_pairs("../tutorial")


def test_fingerprint_tells_texts_and_their_borders_apart():
    prints = {fingerprint(pairs) for pairs in ([Pair("ab", "c")], [Pair("a", "bc")], [Pair("ab", "c")] * 2)}
    assert len(prints) == 3


def test_the_split_is_the_tutorials():
    pairs = builtin_pairs("tutorial")
    expected = list(pairs)
    random.seed(42)
    random.shuffle(expected)
    split = shuffled_split(pairs, 0.8, 42)
    assert [*split.train, *split.validation] == expected
    assert {pair.question for pair in split.validation} == {
        "What is the capital of France?",
        "What is the capital of Germany?",
    }


@pytest.mark.parametrize(("count", "fraction", "train"), [(2, 0.8, 1), (2, 0.1, 1), (3, 0.99, 2), (10, 0.8, 8)])
def test_both_sides_of_a_split_have_a_pair(count, fraction, train):
    split = shuffled_split([Pair(str(i), "x") for i in range(count)], fraction, 0)
    assert (len(split.train), len(split.validation)) == (train, count - train)

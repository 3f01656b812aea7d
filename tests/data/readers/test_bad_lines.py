"""Lines that are not pairs and files that are not files of pairs: named by place, counted."""

import gzip

import pytest

from qa_lm.data.readers.problems import LISTED
from qa_lm.data.readers.reading import file_sources
from qa_lm.errors import UserError
from tests.conftest import read
from tests.data.readers.test_reading import GOOD, write


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (GOOD + "{oops}\n", ":2: not JSON: Expecting property name"),
        (GOOD + "\n[1]\n", ":3: no object: expected .* found list"),
        (GOOD + '{"question": "a?"}\n', ":2: no answer; found the keys question"),
        (GOOD + '{"question": " ", "answer": "b"}\n', ":2: the question is empty"),
        (GOOD + '{"question": "a", "answer": ""}\n', ":2: the answer is empty"),
        (GOOD + '{"question": "a", "answer": {}}\n', ":2: the answer must be text, found {}"),
        (GOOD + '{"question": "a", "answer": []}\n', ":2: the question has no answer; data.unanswerable=skip leaves"),
        (GOOD + '{"question": "a", "answer": ["b", null]}\n', ":2: the answer is missing"),
        (GOOD + '{"question": "a", "answer": "\\ud800"}\n', ":2: the answer contains half of a surrogate"),
        (GOOD + "[" * 100_000 + "\n", ":2: not JSON"),
        (GOOD + '{"question": ' + "9" * 5000 + ', "answer": "b"}\n', ":2: not JSON: Exceeds the limit"),
        (GOOD.encode() + b'{"question": "\xff", "answer": "b"}\n', ":2: not UTF-8: byte 48 of the file is 0xff"),
        ('{"one": "a", "two": "b"}', ":1: no column for the question and answer; found one, two"),
    ],
)
def test_bad_jsonl_is_named_by_file_and_line(tmp_path, content, message):
    with pytest.raises(UserError, match=message) as error:
        read(write(tmp_path, content))
    assert "pairs.jsonl:" in str(error.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("frage,x\na,b\n", ":1: no column for the answer; found frage, x. Name it: data.answer"),
        ("question,question\na,b\n", ":1: a column is named twice"),
        (
            'question,answer\na,"two\nlines"\nb,c,d\n',
            ":4: 3 fields where there are 2 columns; quote a text that holds ','",
        ),
        ("question,answer\na,b\nc,\n", ":3: the answer is empty"),
        (
            'question,answer\na,b\nc,"open\n',
            ":3: a quotation mark is not closed; put a text that holds one in quotation",
        ),
        (b"question,answer\na,b\nc\xe9,d\n", ":3: not UTF-8: byte 21 of the file is 0xe9"),
    ],
)
def test_bad_csv_is_named_by_file_and_line(tmp_path, content, message):
    with pytest.raises(UserError, match=message):
        read(write(tmp_path, content, "pairs.csv"))


def test_every_bad_line_is_counted_and_the_first_are_listed(tmp_path):
    path = write(tmp_path, "".join(f'{GOOD}{{"question": "a", "answer": [[{number}]]}}\n' for number in range(30)))
    with pytest.raises(UserError) as error:
        read(path)
    first, *lines = str(error.value).splitlines()
    assert first == "30 bad lines, the first 20:"
    assert len(lines) == LISTED
    assert [line.split(":")[1] for line in lines] == [str(2 * number) for number in range(1, 21)]
    assert len(read(path, skip_bad_lines=True)) == 30


def test_what_is_wrong_in_many_lines_is_said_once(tmp_path):
    with pytest.raises(UserError) as error:
        read(write(tmp_path, '{"one": "a", "two": "b"}\n' * 4))
    head, fault, others = str(error.value).splitlines()
    assert head == "4 bad lines:"
    assert fault.endswith(
        "pairs.jsonl:1: no column for the question and answer; found one, two. Name it: "
        "data.question=... data.answer=..."
    )
    assert others == "the same in lines 2, 3, 4"
    empty = '{"question": "a", "answer": ""}\n'
    with pytest.raises(UserError) as error:
        read(write(tmp_path, GOOD + empty + "{oops}\n" + empty))
    _, fault, others, other = str(error.value).splitlines()
    assert (fault.split(":")[-2:], others) == (["2", " the answer is empty"], "the same in line 4")
    assert ":3: not JSON: " in other


@pytest.mark.parametrize("encoding", ["cp949", "utf-16", "utf-16-le", "cp1252", "utf-8"])
@pytest.mark.parametrize("name", ["pairs.jsonl", "pairs.csv"])
def test_another_encoding_is_refused_with_its_place_or_read_by_name(tmp_path, encoding, name):
    text = (
        "question,answer\na,b\n" + "café?,x\n" * 10_000
        if name.endswith("csv")
        else GOOD + GOOD.replace("a?", "café?") * 10_000
    )
    if encoding == "cp949":
        text = text.replace("café", "누구")
    path = write(tmp_path, text.encode(encoding), name)
    pairs = read(path, encoding=encoding)
    assert len(pairs) == 10_001
    assert pairs[1].question == ("누구?" if encoding == "cp949" else "café?")
    if encoding in ("cp949", "cp1252"):
        line, byte = (
            (3 if name.endswith("csv") else 2),
            text.encode(encoding).index("누é"["p1252" in encoding].encode(encoding)),
        )
        with pytest.raises(UserError, match=rf"{name}:{line}: not UTF-8: byte {byte} of the file"):
            read(path)


@pytest.mark.parametrize("block", [1, 3, 1 << 16])
def test_the_place_of_a_bad_byte_does_not_depend_on_blocks(tmp_path, monkeypatch, block):
    monkeypatch.setattr("qa_lm.data.readers.files.BLOCK", block)
    content = "question,answer\n누구,x\ny,é\n".encode() + b"\xea\xb5,z\n"
    with pytest.raises(UserError, match=rf":4: not UTF-8: byte {content.index(bytes([0xEA, 0xB5, 0x2C]))} of"):
        read(write(tmp_path, content, "pairs.csv"))


def test_what_is_no_file_of_pairs(tmp_path):
    with pytest.raises(UserError, match=r"none.jsonl: cannot be read: No such file"):
        read(tmp_path / "none.jsonl")
    with pytest.raises(
        UserError, match=r"pairs.dat: the name must end in .jsonl, .json, .csv, .tsv, .xlsx, .parquet, ea"
    ):
        read(write(tmp_path, GOOD, "pairs.dat"))
    with pytest.raises(UserError, match="is a folder; name its files"):
        read(tmp_path)
    with pytest.raises(UserError, match="no file matches"):
        read(tmp_path / "*.csv")
    with pytest.raises(UserError, match="data.encoding=utf-9: no such encoding"):
        read(write(tmp_path, GOOD), encoding="utf-9")
    with pytest.raises(UserError, match="not a whole gzip file"):
        read(write(tmp_path, gzip.compress(GOOD.encode() * 99)[:-9], "cut.jsonl.gz"))
    with pytest.raises(UserError, match="not a whole gzip file"):
        read(write(tmp_path, GOOD, "none.jsonl.gz"))
    with pytest.raises(UserError, match="pairs.parquet:1: not Parquet"):
        read(write(tmp_path, GOOD, "pairs.parquet"))
    with pytest.raises(UserError, match="named twice in data.path"):
        file_sources([str(tmp_path / "pairs.jsonl")] * 2, "data.path")

"""Which column is the question, which the answer."""

import json

import pyarrow as pa
import pyarrow.parquet
import pytest

from qa_lm.data.columns import ColumnNames
from qa_lm.data.pairs import Pair
from qa_lm.data.reading import PairReader, Reading, file_sources
from qa_lm.errors import UserError
from tests.conftest import read
from tests.test_reading import GOOD, write


@pytest.mark.parametrize(
    ("record", "shown"),
    [
        ({"prompt": "a?", "completion": "b"}, "question = prompt, answer = completion"),
        ({"instruction": "a?", "output": "b"}, "question = instruction, answer = output"),
        ({"Q": "a?", "A": "b"}, "question = Q, answer = A"),
        ({"Question": "a?", "Answer": "b", "prompt": "x"}, "question = Question, answer = Answer; not read: prompt"),
        ({"question": "a?", "answers": {"text": ["b"], "answer_start": [1]}}, "question = question, answer = answers"),
        ({"question": "a?", "answer": "b", "group": 3}, "question = question, answer = answer, group = group"),
    ],
)
def test_columns_are_recognised_and_shown(tmp_path, record, shown):
    reader = PairReader(file_sources(str(write(tmp_path, json.dumps(record))), "data.path"), Reading())
    ((_, line, pair),) = reader.pairs()
    assert (line, pair[:2]) == (1, ("a?", "b"))
    assert list(reader.columns.values()) == [shown]


def test_columns_by_name_and_an_instructions_input(tmp_path):
    record = {"instruction": "Add.", "input": "2 and 2", "output": "4", "ask": "2+2?", "fact": "sum"}
    path = write(tmp_path, json.dumps(record))
    assert read(path) == [Pair("Add.\n2 and 2", "4")]
    assert read(path, columns=ColumnNames("ask", "output", "fact")) == [Pair("2+2?", "4", (), "sum")]
    with pytest.raises(UserError, match=r"pairs.jsonl:1: no column asked \(data.question\); found instruction, input"):
        read(path, columns=ColumnNames("asked"))


def test_a_column_that_only_some_records_have_is_read_where_it_is(tmp_path):
    records: list[dict[str, object]] = [{"instruction": "Add", "output": "z"}]
    records += [{"instruction": "Translate", "input": "w", "output": "v", "group": 3.0}]
    records += [{"instruction": "Sum", "input": "", "output": "v", "group": float("nan")}]
    expected = [Pair("Add", "z"), Pair("Translate\nw", "v", (), "3"), Pair("Sum", "v")]
    for each in (records, records[::-1]):
        path = write(tmp_path, "".join(json.dumps(record) + "\n" for record in each))
        reader = PairReader(file_sources(str(path), "data.path"), Reading(ColumnNames(group="group")))
        assert sorted(pair for _, _, pair in reader.pairs()) == sorted(expected)
        assert list(reader.columns.values()) == ["question = instruction + input, answer = output, group = group"]
    with pytest.raises(UserError, match=r"no column fact \(data.group\)"):
        read(path, columns=ColumnNames(group="fact"))
    as_csv = write(tmp_path, "Question,Answer,Group\na?,b, G \nc?,d,\n", "pairs.csv")
    assert read(as_csv) == [Pair("a?", "b", (), "G"), Pair("c?", "d")]


def test_csv_headers_as_people_write_them(tmp_path):
    pairs = [Pair("a?", "b"), Pair("c?", "d")]
    for content in (
        "\n question , answer ,,\na?,b,,\nc?,d,,\n",
        "question;answer;notes, internal\na?;b;\nc?;d;x, y\n",
        "\ufeffquestion,answer\na?,b\nc?,d\n",
    ):
        assert read(write(tmp_path, content, "pairs.csv")) == pairs
    header = ("question", "answer")
    assert read(write(tmp_path, '"one; two\nthree",A1\n', "pairs.csv"), header=header) == [
        Pair("one; two\nthree", "A1")
    ]
    with pytest.raises(UserError, match="1: these are the names of data.columns: leave data.columns out"):
        read(write(tmp_path, "question,answer\na?,b\n", "pairs.csv"), header=header)
    with_mark = "question,answer\na?,b\nc?,d\n".encode("utf-16")
    assert read(write(tmp_path, with_mark, "pairs.csv"), encoding="utf-16-le") == pairs
    assert read(write(tmp_path, (GOOD + GOOD).encode("utf-16")), encoding="utf-16-le") == [Pair("a?", "b")] * 2


def test_parquet_columns_that_are_no_text_do_not_matter(tmp_path):
    far = pa.array([2**62, 1], pa.timestamp("us"))
    table = pa.table({"when": far, "question": ["a?", "c?"], "answer": ["b", "d"], "raw": [b"\xff", b""]})
    pa.parquet.write_table(table, tmp_path / "pairs.parquet")
    assert read(tmp_path / "pairs.parquet") == [Pair("a?", "b"), Pair("c?", "d")]

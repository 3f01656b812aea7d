"""Which column is the question, which the answer."""

import datetime
import decimal
import json
import unicodedata

import pyarrow as pa
import pyarrow.parquet
import pytest

from qa_lm.data.pairs import Pair
from qa_lm.data.readers.reading import PairReader, Reading, file_sources
from qa_lm.data.records.columns import ColumnNames
from qa_lm.errors import UserError
from qa_lm.templates import parse_template
from tests.conftest import read
from tests.data.readers.test_reading import GOOD, write


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


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        *(("질문", "답변"), ("질문", "답"), ("문제", "정답"), ("質問", "回答"), ("質問", "答え"), ("問題", "解答")),
        *(("问题", "答案"), ("问题", "回答"), ("問題", "答案"), ("提問", "回覆"), ("Frage", "Antwort")),
        *(("question", "réponse"), ("Question", "REPONSE"), ("pregunta", "respuesta"), ("Pergunta", "Resposta")),
        *(("domanda", "risposta"), ("Вопрос", "Ответ"), ("query", "response"), ("input", "output")),
        *(
            ("problem", "solution"),
            ("Question", "Best Answer"),
            ("question_text", "answer_text"),
            ("prompt", "response"),
        ),
        *(("instruction", "response"), ("prompt", "answer"), ("질문", "answer"), ("question", "correct-answer")),
    ],
)
def test_names_of_many_languages_and_habits(tmp_path, question, answer):
    for form in ("NFC", "NFD"):  # as Windows and macOS write them
        names = [unicodedata.normalize(form, name) for name in (answer, "id", question)]
        path = write(tmp_path, json.dumps(dict(zip(names, ("b", "7", "a?"), strict=True))))
        assert read(path) == [Pair("a?", "b")]


@pytest.mark.parametrize(
    ("record", "said"),
    [
        (
            {"answer": "b", "question": "a?", "solution": "x"},
            "question = question, answer = answer; not read: solution",
        ),
        ({"problem": "a?", "solution": "x", "answer": "b"}, "question = problem, answer = answer; not read: solution"),
        ({"input": "x", "instruction": "a?", "output": "b"}, "question = instruction + input, answer = output"),
        ({"q": "a?", "A": "x", "B": "b", "answer": "b"}, "question = q, answer = answer; not read: A, B"),
        ({"문제": "a?", "질문": "x", "답": "b"}, "question = 질문, answer = 답; not read: 문제"),
    ],
)
def test_of_several_names_the_most_explicit_is_read_and_said(tmp_path, record, said):
    reader = PairReader(file_sources(str(write(tmp_path, json.dumps(record))), "data.path"), Reading())
    list(reader.pairs())
    assert list(reader.columns.values()) == [said]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        *((3, "3"), (3.0, "3.0"), (-0.5, "-0.5"), (2**100, str(2**100)), (True, "true"), (False, "false"), (0, "0")),
        *((["x", 2], "x"), ([1.5], "1.5"), ({"text": [7], "answer_start": [0]}, "7"), ([{"text": "x"}], "x")),
        ({"value": "x", "aliases": ["y"]}, "x"),
    ],
)
def test_numbers_and_booleans_are_their_text(tmp_path, value, text):
    (pair,) = read(write(tmp_path, json.dumps({"question": 5, "answer": value})))
    assert pair[:2] == ("5", text)


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (None, "the answer is missing"),
        (float("nan"), "the answer is missing"),
        (float("inf"), "the answer must be text, found Infinity"),
        ({"a": 1}, "the answer must be text, found {"),
        ([[]], r"the answer must be text, found \[\]"),
    ],
)
def test_what_is_no_text_is_a_bad_line(tmp_path, value, reason):
    with pytest.raises(UserError, match=f"pairs.jsonl:1: {reason}"):
        read(write(tmp_path, json.dumps({"question": "a?", "answer": value})))


def test_values_of_parquet_that_are_no_strings(tmp_path):
    def answers(values, kind=None):
        table = pa.table({"question": ["a?"] * len(values), "answer": pa.array(values, kind)})
        pa.parquet.write_table(table, tmp_path / "pairs.parquet")
        return [pair.answer for pair in read(tmp_path / "pairs.parquet")]

    day = datetime.date(2024, 2, 29)
    assert answers([day]) == ["2024-02-29"]
    assert answers([datetime.datetime(2024, 2, 29, 5, 6)]) == ["2024-02-29T05:06:00"]
    assert answers([decimal.Decimal("12.50")]) == ["12.50"]
    assert answers([True, False]) == ["true", "false"]
    assert answers(["é".encode()], pa.large_binary()) == ["é"]
    for values in ([b"\xff\xfe"], [b"x" * 5000]):
        with pytest.raises(UserError, match="pairs.parquet:1: the answer holds bytes that are not UTF-8 text"):
            answers(values)


def test_questions_without_an_answer(tmp_path):
    plausible = {"plausible_answers": [{"text": "never"}]}
    squad = [
        {"question": "a?", "is_impossible": False, "answers": [{"text": "b", "answer_start": 0}]},
        {"question": "c?", "is_impossible": True, "answers": []} | plausible,
        {"question": "d?", "is_impossible": True, "answers": [{"text": "never"}]},
        {"question": "e?", "answers": {"text": [], "answer_start": []}},
    ]
    nested = {"data": [{"title": "T", "paragraphs": [{"context": "C", "qas": squad}]}]}
    for content in ("".join(json.dumps(record) + "\n" for record in squad), json.dumps(nested)):
        path = write(tmp_path, content, "squad.json")
        with pytest.raises(UserError, match="data.unanswerable=skip") as error:
            read(path)
        assert len(str(error.value).splitlines()) == 3
        assert "the same in lines 3, 4" in str(error.value)
        reader = PairReader(file_sources(str(path), "data.path"), Reading(unanswerable="skip"))
        assert [pair for _, _, pair in reader.pairs()] == [Pair("a?", "b")]
        assert reader.found()["unanswerable"] == 3
        assert read(path, unanswerable="none") == [Pair("a?", "b"), *(Pair(f"{q}?", "none") for q in "cde")]
    prompt = parse_template("{title}: {context}\n{question}").parts
    assert read(path, unanswerable="skip", prompt=prompt) == [Pair("T: C\na?", "b")]


def test_pairs_with_one_answer_are_one_fact_where_the_answer_is_the_group(tmp_path):
    records = [("a?", "Yes, we do."), ("b?", "yes,  we do"), ("c?", "No.")]
    path = write(tmp_path, "".join(json.dumps({"Q": q, "A": a}) + "\n" for q, a in records))
    for name in ("A", "answer"):
        reader = PairReader(file_sources(str(path), "data.path"), Reading(ColumnNames(group=name)))
        assert [pair.group for _, _, pair in reader.pairs()] == ["yes, we do", "yes, we do", "no"]
        assert list(reader.columns.values()) == ["question = Q, answer = A, group = the answer's text"]

"""Values that were written as text: lists and dictionaries are read as such, missing values are warned of."""

import json

import pandas  # type: ignore[import-untyped]
import pytest

from qa_lm.data.pairs import Pair
from qa_lm.data.quality.checks import DataReport
from qa_lm.data.quality.missing import ERRORS, MISSING, describe_missing
from qa_lm.data.readers.written_lists import written_list
from tests.conftest import SHARED_DATA, read, table_of
from tests.data.readers.test_reading import GOOD, write
from tests.data.readers.test_tables import reader_of
from tests.scripts_as_modules import check_data

KEPT = "answers that are lists written as text; they are trained with their brackets"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("['red', 'Red']", ["red", "Red"]),
        ('["it\'s", "a \\"b\\""]', ["it's", 'a "b"']),
        ('["a", "\\u00e9"]', ["a", "é"]),
        ("['red' 'Red']", ["red", "Red"]),
        ("['red'\n \"it's\"]", ["red", "it's"]),
        ("[np.str_('red'), np.str_('Red')]", ["red", "Red"]),
        ("{'text': ['Paris'], 'answer_start': [5]}", {"text": ["Paris"], "answer_start": [5]}),
        (
            "{'text': array(['a (b)', 'c, d'], dtype=object), 'answer_start': array([1, 22], dtype=int32)}",
            {"text": ["a (b)", "c, d"], "answer_start": [1, 22]},
        ),
        ('{"text": "x"}', {"text": "x"}),
        ("[{'role': 'user'}\n {'content': 'ho'}]", [{"role": "user"}, {"content": "ho"}]),
        ("[]", []),
        *((text, None) for text in ("[1, 2]", "[1 2]", "['a', 1]", "{'a': 1}", "[sic] no", "[x for x in y]", "['a'")),
        *((text, None) for text in ("{}", "['a' * 9]", "[" * 9999 + "]" * 9999, "array", "[open('x')]")),
    ],
)
def test_what_a_text_shows(text, value):
    assert written_list(text) == value


def test_columns_that_pandas_wrote(tmp_path):
    frame = pandas.DataFrame(
        {"question": ["a?", "c?"], "answers": [["b", "B, 'x'"], ["d"]], "choices": [["x", "y"], ["z"]]}
    )
    for name, wrote in (
        ("a.csv", frame.to_csv),
        ("a.tsv", lambda path, index: frame.to_csv(path, sep="\t", index=index)),
    ):
        wrote(tmp_path / name, index=False)
        pairs, said, warnings = reader_of(tmp_path / name)
        assert pairs == [Pair("a?", "b", ("B, 'x'",)), Pair("c?", "d")]
        assert (said.endswith("; read with lists written as text in answers, choices"), warnings) == (True, [])
    squad = frame.assign(answers=[{"text": pandas.array(["b"]).to_numpy(), "answer_start": [1]}] * 2)
    squad.to_csv(tmp_path / "b.csv", index=False)
    assert read(tmp_path / "b.csv") == [Pair("a?", "b"), Pair("c?", "b")]


def test_a_column_is_read_as_lists_only_if_all_its_texts_are(tmp_path):
    lines = [json.dumps({"question": f"q{number}", "answer": f"['{number}']"}) for number in range(50)]
    content = "\n".join(lines)
    assert read(write(tmp_path, content)) == [Pair(f"q{number}", str(number)) for number in range(50)]
    pairs, said, warnings = reader_of(write(tmp_path, content + "\n" + GOOD))
    assert pairs[7] == Pair("q7", "['7']")
    path = "pairs.jsonl"
    assert (said, warnings) == ("", [f"{KEPT}: 50, at {path}:1, {path}:2, {path}:3, ..."])
    numbers = content.replace("['", "[").replace("']", "]")  # such as a data set of sums has
    assert reader_of(write(tmp_path, numbers))[::2] == ([Pair(f"q{n}", f"[{n}]") for n in range(50)], [])
    questions = "".join(f'{{"question": "[\'a{number}\']", "answer": "b"}}\n' for number in range(9))
    assert read(write(tmp_path, questions))[0] == Pair("['a0']", "b")


def test_an_empty_text_is_no_list_and_an_empty_list_no_answer(tmp_path):
    path = write(tmp_path, "question,answer,x\na,\"['b']\",\nc,[],\nd,\"['e']\",\"['f']\"\n", "a.csv")
    assert read(path, skip_bad_lines=True) == [Pair("a", "b"), Pair("d", "e")]


def test_missing_values_and_errors_are_counted_with_their_places(tmp_path):
    pairs = [Pair(f"q{number}", "a") for number in range(300)]
    for place, answer in ((3, "#N/A"), (9, "#REF!"), (200, "#N/A"), (250, "#WERT!"), (5, "NULL"), (6, " nan")):
        pairs[place] = Pair(f"q{place}", answer)
    pairs[7] = Pair("None", "nothing")
    assert describe_missing(table_of(pairs, tmp_path)) == [
        "answers that are spreadsheet errors (#N/A, #REF!, #WERT!): 4, at pairs:4, pairs:10, pairs:201, ...; "
        "correct these cells or delete these lines",
        "answers that look like missing values (NULL, nan): 2, at pairs:6, pairs:7",
        "questions that look like missing values (None): 1, at pairs:8",
    ]
    others = [Pair("Is it none of them?", "None of them"), Pair("#1?", "#"), Pair("a", "nano"), Pair("b", "no")]
    assert describe_missing(table_of(others, tmp_path)) == []
    assert len({*ERRORS, *MISSING}) > 100


def test_the_check_shows_how_files_were_read_and_what_is_odd(tmp_path, capsys):
    rows = "".join(f"q{number}?;a{number}\n" for number in range(9))
    path = write(tmp_path, f'sep=;\nquestion;answer\n{rows}Say;"Red\n{rows.replace("q", "r")}x;#N/A\n', "a.csv")
    output = tmp_path / "report.json"
    assert check_data.main([str(path), "--output", str(output)]) == 0
    first, *lines = capsys.readouterr().out.splitlines()
    assert first == f"{path}: question = question, answer = answer; read with ';' as separator"
    assert f"warning: quotation marks that quote nothing, read as text: 1, at {path}:12" in lines
    assert any(line.startswith("warning: answers that are spreadsheet errors (#N/A): 1, at") for line in lines)
    report = DataReport(**json.loads(output.read_text()))
    assert report.sources == {str(path): "question = question, answer = answer; read with ';' as separator"}
    assert len(report.warnings) == 2
    assert check_data.main([str(path), "--strict"]) == 2


@pytest.mark.skipif(not SHARED_DATA.is_dir(), reason="the folder of odd files is not beside this clone")
def test_odd_file_of_errors(capsys):
    assert check_data.main([str(SHARED_DATA / "odd" / "t_err.csv")]) == 0
    assert "answers that are spreadsheet errors (#N/A): 5, at " in capsys.readouterr().out

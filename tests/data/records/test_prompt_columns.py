"""Columns beside question and answer: named when they are not read, put into the prompt where a template names them."""

import json
import subprocess
import sys
from dataclasses import replace

import pyarrow as pa
import pyarrow.parquet
import pytest

from qa_lm.config.compose import data_config, with_quoted_templates
from qa_lm.config.enums import Weights
from qa_lm.config.schema import TokenizerConfig
from qa_lm.data.encoding import PromptTemplate, encode_pairs
from qa_lm.data.pairs import Pair
from qa_lm.data.question_files import questions_in
from qa_lm.data.readers.reading import PairReader, Reading, file_sources
from qa_lm.errors import UserError
from qa_lm.inference.answerer import Answerer
from qa_lm.templates import parse_template
from qa_lm.training.train import train
from tests.conftest import ROOT, read, small_config
from tests.data.readers.test_reading import write
from tests.prepared_pairs import prepared
from tests.scripts_as_modules import ask, check_data, evaluate

ROOMS = [("What colour is the lamp?", f"The {name} lamp is {colour}.", colour) for name, colour in (
    ("north", "red"), ("south", "blue"), ("east", "green"), ("west", "white"), ("upper", "black"), ("lower", "amber"),
)]  # fmt: skip
PROMPT = "Context: {context}\nQ: {question}\nA:"


def as_jsonl(records, folder, name="pairs.jsonl"):
    return write(folder, "".join(json.dumps(record) + "\n" for record in records), name)


@pytest.fixture
def rooms(tmp_path):
    return as_jsonl([{"question": q, "context": c, "answer": a} for q, c, a in ROOMS], tmp_path)


def read_with(path, prompt="{question}", completion=" {answer}", **how):
    return read(path, prompt=parse_template(prompt).parts, completion=parse_template(completion).parts, **how)


def found_in(path, **how):
    reader = PairReader(file_sources(str(path), "data.path"), Reading(**how))
    list(reader.pairs())
    return reader.columns[str(path)], reader.found()["warnings"]


@pytest.mark.parametrize(
    ("more", "prompt"),
    [
        ({"context": "x"}, r"{context}\n{question}"),
        ({"passage": "x", "id": 3}, r"{passage}\n{question}"),
        ({"system": "x", "history": [["a", "b"]]}, r"{system}\n{history}\n{question}"),
        ({"choices": ["x", "y"]}, r"{question}\n{choices}"),
        ({"D": "z", "B": "y", "A": "x", "C": "w"}, r"{question}\nA: {A}\nB: {B}\nC: {C}\nD: {D}"),
        ({"option_b": "y", "option_a": "x"}, r"{question}\nA: {option_a}\nB: {option_b}"),
        ({"지문": "x"}, r"{지문}\n{question}"),
        ({"Kontext": "x"}, r"{Kontext}\n{question}"),
        ({"id": 1, "source": "web", "context": "", "history": [], "system": None}, None),  # nothing in them
        ({"A": "grade"}, None),  # one letter is no choice
    ],
)
def test_columns_that_answers_may_rest_on_are_called_out(tmp_path, more, prompt):
    path = as_jsonl([{"question": "a?", "answer": "b"} | more] * 2, tmp_path)
    columns, warnings = found_in(path)
    assert columns == f"question = question, answer = answer; not read: {', '.join(more)}"
    assert [warning.split(": data.prompt=")[1] for warning in warnings] == ([f'"{prompt}"'] if prompt else [])
    if prompt:  # what is advised can be given, and is then silent
        parts = PromptTemplate.from_settings(prompt, " {answer}").question_parts
        assert found_in(path, prompt=parts)[1] == []


def test_many_files_with_the_same_columns_are_called_out_once(tmp_path):
    for number in range(30):
        as_jsonl([{"question": "a?", "answer": "b", "context": "c"}], tmp_path, f"{number:02}.jsonl")
    reader = PairReader(file_sources(str(tmp_path / "*.jsonl"), "data.path"), Reading())
    list(reader.pairs())
    (warning,) = reader.found()["warnings"]
    assert "00.jsonl and 29 more: the answers may rest on the column context, which is not read" in warning


def test_a_column_that_only_later_records_have_is_found(tmp_path):
    path = as_jsonl([{"question": "a?", "answer": "b"}, {"question": "c?", "answer": "d", "passage": "p"}], tmp_path)
    columns, warnings = found_in(path)
    assert columns.endswith("; not read: passage")
    assert len(warnings) == 1


def test_columns_in_prompt_and_completion(tmp_path):
    record = {"question": "Why?", "Context": "It {rains}.", "answer": ["so", "thus"], "n": 3, "choices": ["x", "y"]}
    path = as_jsonl([record], tmp_path)
    assert read_with(path, "{{C}} {context}\n{question} {n}!") == [Pair("It {rains}.\nWhy? 3", "so", ("thus",))]
    assert read_with(path, "{question}\n{choices}") == [Pair("Why?\nx\ny", "so", ("thus",))]
    assert read_with(path, "{question} {question}", "{n}: {answer}") == [Pair("Why? Why?", "3: so", ("3: thus",))]
    assert read_with(path, "{Context}", " {n}") == [Pair("It {rains}.", "3")]  # neither question nor answer is needed
    with pytest.raises(UserError, match=r":1: no column ctx \(data.prompt\); found question, Context, answer, n"):
        read_with(path, "{ctx} {question}")
    with pytest.raises(UserError, match=r":1: no column why \(data.completion\)"):
        read_with(path, completion="{answer} {why}")


@pytest.mark.parametrize("missing", [{}, {"context": None}, {"context": float("nan")}])
def test_a_record_without_a_column_of_the_prompt_is_a_bad_line(tmp_path, missing):
    path = as_jsonl(
        [{"question": "a?", "answer": "b", "context": ""}, {"question": "c?", "answer": "d"} | missing], tmp_path
    )
    assert read_with(path, "{context}\n{question}", skip_bad_lines=True) == [Pair("\na?", "b")]
    with pytest.raises(UserError, match=r"pairs.jsonl:2: the context is missing"):
        read_with(path, "{context}\n{question}")


def test_an_input_that_the_prompt_names_is_not_joined_too(tmp_path):
    path = as_jsonl([{"question": "Add.", "input": "2 and 2", "answer": "4"}], tmp_path)
    assert read_with(path) == [Pair("Add.\n2 and 2", "4")]
    assert read_with(path, "{input}: {question}") == [Pair("2 and 2: Add.", "4")]
    assert found_in(path)[0] == "question = question + input, answer = answer"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{question", "expected '}'"),
        ("question}", "Single '}'"),
        ("{} {question}", "{} names no column"),
        ("x", "no column"),
    ],
)
def test_templates_that_cannot_be_filled(text, message):
    with pytest.raises(UserError, match=r"data.prompt=.*write columns as in '{question}'") as error:
        PromptTemplate.from_settings(text, " {answer}")
    assert message in str(error.value)
    with pytest.raises(UserError, match="the prompt cannot contain {answer}"):
        PromptTemplate.from_settings("{question} {answer}", " {answer}")


def test_only_the_text_around_the_columns_is_added_when_a_pair_is_encoded(gpt2, rooms):
    template = PromptTemplate.from_settings("{{x}} Context: {context}\\nQ: {question}\\nA:", " {answer}.")
    (pair, *_) = read(rooms, prompt=template.question_parts)
    assert pair.question == "The north lamp is red.\nQ: What colour is the lamp?"
    (example,) = encode_pairs([pair], gpt2, template)
    text = gpt2.decode(example.ids[:-1])
    assert text == "{x} Context: The north lamp is red.\nQ: What colour is the lamp?\nA: red."


def test_the_same_question_with_other_contexts_is_another_question(rooms, tmp_path):
    tokenizer = TokenizerConfig("bpe", vocab_size=300)
    plain = prepared(rooms, tmp_path / "cache", tokenizer, split="shuffle").report
    assert (plain.counts["questions"], plain.contradictions["questions"]) == (1, 1)
    assert plain.warnings[0].startswith(f"{rooms}: the answers may rest on the column context")
    report = prepared(rooms, tmp_path / "cache", tokenizer, prompt=PROMPT).report
    assert (report.counts["questions"], report.contradictions["questions"], report.warnings) == (6, 0, [])


def test_templates_on_a_command_line_need_no_further_quotes():
    arguments = ["data.prompt={context}\\n{question}", 'data.completion={a} "b"', 'data.prompt="{x}"', "model=tiny"]
    assert with_quoted_templates(arguments) == [
        'data.prompt="{context}\\n{question}"',
        "data.completion='{a} \"b\"'",
        'data.prompt="{x}"',
        "model=tiny",
    ]
    several = ["-m", "data.prompt={a},{b}"]
    assert with_quoted_templates(several) == several
    assert data_config(["data.prompt={context}\\n{question}"]).prompt == "{context}\n{question}"
    command = [
        sys.executable,
        "scripts/train.py",
        "data=file",
        "data.path=x",
        "data.prompt={c}, {question}\\n",
        "--cfg",
        "job",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    assert "  prompt: '{c}, {question}\\n'\n" in done.stdout


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run that knows the lamps by their contexts alone."""
    folder = tmp_path_factory.mktemp("context")
    path = as_jsonl([{"question": q, "context": c, "answer": a} for q, c, a in ROOMS], folder)
    config = small_config(trainer__max_epochs=60, early_stopping__patience=None, export_weights=Weights.last)
    config.data = replace(config.data, path=str(path), prompt=PROMPT.replace("\n", "\\n"))
    config.evaluation.max_new_tokens = 16
    return train(config, folder / "run"), path


def test_a_run_with_columns_in_its_prompt_is_asked_and_evaluated(run, tmp_path, capsys, monkeypatch):
    result, path = run
    folder = str(result.folder)
    monkeypatch.chdir(tmp_path)
    assert PromptTemplate.load(result.folder / "model").prompt == PROMPT
    right = next(answer for answer in result.answers if answer.exact_match)
    context = right.question.split("\n")[0]
    question = ROOMS[0][0]
    assert ask.main([folder, question, "--set", f"context={context}"]) == 0
    assert capsys.readouterr().out == f"{right.answer}\n"
    (answer,) = Answerer.load(result.folder).answer([right.question], 16)  # golden questions hold
    assert answer.answer == right.answer

    table = write(tmp_path, f"question,context\n{question},{context}\n", "asked.csv")
    for arguments in ([str(table)], [str(as_jsonl([{"QUESTION": question}], tmp_path)), "--set", f"context={context}"]):
        assert ask.main([folder, "--file", *arguments]) == 0
        assert capsys.readouterr().out == f"{right.answer}\n"
    for arguments, message in (
        ([question], "context is missing; give --set context=TEXT, or --file with a column of that name"),
        ([], "context is missing"),
        ([question, "--set", "contxt=x"], "--set contxt=...: this model is asked with context, question"),
        ([question, "--set", "context"], "--set context: write NAME=TEXT"),
        (["--file", str(as_jsonl([{"question": "q"}], tmp_path))], "pairs.jsonl:1: no column context"),
        (["--file", str(write(tmp_path, "What?\n", "asked.txt"))], "context is missing"),
    ):
        assert ask.main([folder, *arguments]) == 2
        assert message in capsys.readouterr().err

    assert evaluate.main([folder, "--json", f"data.path={path}", "--out", "given"]) == 0
    answers = [json.loads(line) for line in (tmp_path / "given" / "answers.jsonl").read_text().splitlines()]
    assert [answer["question"] for answer in answers] == [f"{c}\nQ: {q}" for q, c, _ in ROOMS]
    assert evaluate.main([folder, f"data.path={path}", "data.prompt={question}"]) == 2
    assert "data.prompt: this model was saved with" in capsys.readouterr().err
    assert evaluate.main([folder, "--out", "own"]) == 0


@pytest.mark.parametrize("name", ["q.csv", "q.tsv", "q.jsonl", "q.json", "q.parquet", "q.txt"])
def test_questions_are_asked_from_tables(small_run, tmp_path, capsys, name):
    questions = ["What is the capital of France?", "Who are you?"]
    if name.endswith("parquet"):
        pa.parquet.write_table(pa.table({"id": [1, 2], "Frage": questions}), tmp_path / name)
    else:
        columns = {"csv": "id,Question,x\n1,{},\n2,{},\n", "tsv": "질문\n{}\n{}\n", "txt": "{}\n\n{}\n"}
        columns |= {"jsonl": '{{"question": "{}"}}\n{{"question": "{}", "answer": null}}\n'}
        columns |= {"json": '[{{"prompt": "{}"}}, {{"prompt": "{}"}}]'}
        write(tmp_path, columns[name.partition(".")[2]].format(*questions), name)
    assert ask.main([str(small_run.folder), "--json", "--file", str(tmp_path / name)]) == 0
    assert [json.loads(line)["question"] for line in capsys.readouterr().out.splitlines()] == questions


def test_lists_written_as_text_are_asked_as_they_are_trained(tmp_path):
    path = write(tmp_path, "question,choices,answer\nWhich?,\"['red', 'blue']\",red\n", "q.csv")
    template = PromptTemplate("{choices}\n{question}")
    (trained,) = read(path, prompt=template.question_parts)
    assert questions_in(path, template, {}, None, "utf-8") == [trained.question] == ["red\nblue\nWhich?"]


def test_mistakes_in_a_table_of_questions(small_run, tmp_path, capsys):
    run = str(small_run.folder)
    path = str(write(tmp_path, "asked\nWhat?\n", "q.csv"))
    assert ask.main([run, "--file", path]) == 2
    assert (
        capsys.readouterr().err == f"error: {path}:1: no column for the question; found asked. Name it: --column ...\n"
    )
    assert ask.main([run, "--file", path, "--column", "asked"]) == 0
    path = str(write(tmp_path, '{"question": "a"}\n{"question": ""}\n', "q.jsonl"))
    assert ask.main([run, "--file", path]) == 2
    assert "q.jsonl:2: the question is empty" in capsys.readouterr().err


def test_check_data_speaks_of_its_own_options(rooms, tmp_path, capsys):
    assert check_data.main([str(rooms)]) == 2
    told = capsys.readouterr().err
    assert told.startswith("error: the pairs cannot be split: all have one question; choose another --split\n")
    assert told.endswith('to put it into the prompt: --prompt "{context}\\n{question}"\n')
    assert check_data.main([str(rooms), "--split", "shuffle"]) == 0
    assert r'to put it into the prompt: --prompt "{context}\n{question}"' in capsys.readouterr().out
    assert check_data.main([str(rooms), "--prompt", r"{context}\n{question}", "--strict"]) == 0
    assert check_data.main([str(rooms), "--prompt", "{passage} {question}"]) == 2
    assert "no column passage (--prompt); found question, context, answer" in capsys.readouterr().err
    for content, options, message in (
        (
            "one,two\na,b\n",
            [],
            ":1: no column for the question and answer; found one, two. Name it: --question ... --answer ...",
        ),
        (
            "question,answer\na,b\nc,d\n",
            ["--question", "ask"],
            ":1: no column ask (--question); found question, answer",
        ),
        ("question,answer\na,b\nc,d\n", ["--columns", "question", "answer"], "leave --columns out"),
        (
            "question,answer\na,b\nc,d\n",
            ["--split", "fact"],
            "--split: no pair has a group; name its column by --group ...",
        ),
        ("question,answer\na,b\nc,d\n", ["--encoding", "none"], "--encoding none: no such encoding"),
        ("question,answer\na,b\nc,d\n", ["--prompt", "none"], "--prompt none: it names no column"),
    ):
        path = write(tmp_path, content, "pairs.csv")
        assert check_data.main([str(path), *options]) == 2
        told = capsys.readouterr().err
        assert message in told
        assert "data." not in told

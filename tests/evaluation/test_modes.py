"""--mode of scripts/ask.py and scripts/evaluate.py, and the mode that a run chooses."""

import json
import math
import shutil

import pytest

import qa_lm
from qa_lm.config.enums import AnswerMode
from qa_lm.inference.answerer import Answerer
from qa_lm.training.train import train
from tests.conftest import small_config
from tests.retrieval.faq import faq
from tests.scripts_as_modules import ask, evaluate

PAIRS, OTHERS = faq(25)
QUESTION, ANSWER = PAIRS.questions[0], PAIRS.answers[0]
MODES = [mode.value for mode in AnswerMode]


def written(path, pairs):
    rows = zip(pairs.questions, pairs.answers, strict=True)
    path.write_text("".join(json.dumps({"question": q, "answer": a}) + "\n" for q, a in rows))
    return path


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run on a list of frequently asked questions; it has learnt little."""
    root = tmp_path_factory.mktemp("faq")
    path = written(root / "faq.jsonl", PAIRS)
    config = small_config(
        data__path=str(path), data__cache=str(root / "cache"), evaluation__mode=None, trainer__max_epochs=1
    )
    return train(config, root / "run").folder


def asked(capsys, *arguments):
    """The lines that ask.py prints, and its messages."""
    capsys.readouterr()
    assert ask.main([*map(str, arguments)]) == 0
    found = capsys.readouterr()
    return found.out.splitlines(), found.err


def refused(capsys, command, *arguments):
    capsys.readouterr()
    assert command.main([*map(str, arguments)]) == 2
    found = capsys.readouterr()
    assert found.out == ""
    (line,) = [line for line in found.err.splitlines() if not line.startswith("loading")]
    return line


def test_each_mode_answers_in_its_own_way(run, capsys):
    lines = {mode: asked(capsys, run, QUESTION, "--mode", mode, "--json")[0] for mode in MODES}
    found = {mode: json.loads(line) for mode, (line,) in lines.items()}
    for mode, record in found.items():
        assert list(record) == [
            "question",
            "answer",
            "stopped",
            "tokens",
            "log_probability",
            "probability",
            "mode",
            "in_file",
        ]
        assert (record["question"], record["mode"]) == (QUESTION, mode)
        assert record["in_file"] == (record["answer"] in PAIRS.answers)
        assert record["in_file"] or mode == "free"
    assert found["nearest"]["answer"] == found["best"]["answer"] == ANSWER
    assert [found[mode]["log_probability"] is None for mode in MODES] == [False, False, True, True]
    assert 0 < found["best"]["probability"] <= 1
    assert found["known"]["probability"] is found["nearest"]["probability"] is None
    answerer = Answerer.load(run)
    for mode in ("known", "nearest", "best"):
        text = answerer.template.answer_text(found[mode]["answer"])
        assert (found[mode]["tokens"], found[mode]["stopped"]) == (len(answerer.tokenizer.encode([text])[0]), True)


def test_the_mode_of_the_run_is_the_default(run, capsys):
    (line,), _ = asked(capsys, run, QUESTION, "--json")
    assert json.loads(line)["mode"] == "best"
    assert asked(capsys, run, QUESTION)[0] == [ANSWER]
    assert qa_lm.Run(run).ask(QUESTION) == ANSWER


@pytest.mark.parametrize(
    ("setting", "phrasings", "times", "mode"),
    [("null", 4, 1, "best"), ("null", 1, 3, "free"), ("nearest", 4, 1, "nearest")],
)
def test_the_mode_that_a_run_of_the_recipe_chooses(tmp_path, setting, phrasings, times, mode):
    path = written(tmp_path / "faq.jsonl", faq(6, phrasings)[0])
    path.write_text(path.read_text() * times)  # a repeat does not count as a phrasing
    settings = ["experiment=recall", f"data.path={path}", f"data.cache={tmp_path / 'cache'}", "trainer.max_epochs=1"]
    config = qa_lm.compose(*settings, "trainer.accelerator=cpu", f"evaluation.mode={setting}")
    trained = qa_lm.train(config, folder=tmp_path / "run")
    content = json.loads((tmp_path / "run" / "model" / "known_answers.json").read_text())
    assert content["default_mode"] == mode
    assert trained.answerer.default_mode.value == mode
    assert ("known_answers" in trained.board) == (mode != "free")


def test_the_tutorial_writes_its_answers(learnt_run):
    assert qa_lm.compose("experiment=tutorial").evaluation.mode is AnswerMode.free
    assert Answerer.load(learnt_run.folder).default_mode is AnswerMode.free


def test_samples_are_written_freely(run, capsys):
    (line,), _ = asked(capsys, run, QUESTION, "--json", "--temperature", "1")
    assert json.loads(line)["mode"] == "free"
    for mode in MODES[1:]:
        given = [run, QUESTION, "--temperature", "1", "--mode", mode]
        assert refused(capsys, ask, *given) == "error: --temperature needs --mode free"
    said = refused(capsys, ask, run, QUESTION, "--temperature", "1", "--precision", "0.9")
    assert "has no calibration for mode free" in said  # not the threshold of mode best


def test_what_explain_says(run, capsys):
    said = {mode: asked(capsys, run, QUESTION, "--mode", mode, "--explain")[0][1] for mode in MODES}
    assert said["best"].startswith("  right with probability ")
    assert said["best"].endswith("%; stands in the file")
    assert said["nearest"] == "  stands in the file"
    assert said["known"].startswith("  mean log-probability of a token -")
    assert said["known"].endswith("; stands in the file")
    assert said["free"].endswith("; not in the file")


def test_the_nearest_trained_questions_are_those_of_the_ranking_that_answers(run, tmp_path, capsys):
    questions = tmp_path / "questions.txt"
    questions.write_text("".join(f"{question}\n" for question in OTHERS.questions))
    for mode in ("nearest", "best"):
        lines, _ = asked(capsys, run, "--file", questions, "--mode", mode, "--explain", "--json")
        assert len(lines) == len(OTHERS.questions)
        for record in map(json.loads, lines):
            answers = [each["answer"] for each in record["nearest"]]
            assert answers[0] == record["answer"]
            assert len({*answers}) == len(answers) == 3
            for each in record["nearest"]:
                assert (each["question"], each["answer"]) in zip(PAIRS.questions, PAIRS.answers, strict=True)


def test_i_dont_know(run, capsys):
    questions = [QUESTION, "Why does the sky turn red at sunset?"]
    lines, said = zip(*(asked(capsys, run, question, "--precision", "0.9") for question in questions), strict=True)
    assert lines == ([ANSWER], ["I don't know"])
    assert "held-out questions" in said[0]
    _, said = asked(capsys, run, QUESTION, "--abstain-below", "0.5")
    assert "note: probabilities are calibrated on 158 left out and 79 trained pairs" in said
    for mode in ("known", "nearest"):
        assert f"has no calibration for mode {mode}" in refused(
            capsys, ask, run, QUESTION, "--mode", mode, "--precision", "0.9"
        )


def test_too_few_pairs_are_said_to_be_too_few(tmp_path, capsys):
    path = written(tmp_path / "few.jsonl", faq(4)[0])
    config = small_config(
        data__path=str(path), data__cache=str(tmp_path / "cache"), evaluation__mode=None, trainer__max_epochs=1
    )
    folder = train(config, tmp_path / "run").folder
    assert asked(capsys, folder, faq(4)[0].questions[0])[0][0] in faq(4)[0].answers
    said = refused(capsys, ask, folder, "Who?", "--precision", "0.9")
    assert said.startswith(f"error: {folder}: has no calibration for mode best, so probabilities are unknown; it needs")
    assert "questions that share answers, and at least 20 right and 20 wrong answers" in said


def test_a_run_from_before_there_were_modes(run, tmp_path, capsys, monkeypatch):
    def evaluated(*arguments):
        raise AssertionError("evaluated before the refusal")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("qa_lm.evaluation.evaluate.evaluate_pairs", evaluated)
    old = shutil.copytree(run, tmp_path / "old")
    (old / "model" / "known_answers.json").unlink()
    (old / "model" / "known_pairs.jsonl").unlink()
    (line,), _ = asked(capsys, old, QUESTION, "--json")
    assert (json.loads(line)["mode"], json.loads(line)["in_file"]) == ("free", None)
    (line,), _ = asked(capsys, old, QUESTION, "--json", "--explain")
    assert len(json.loads(line)["nearest"]) == 3
    for command in (ask, evaluate):
        for mode in MODES[1:]:
            given = [old, QUESTION, "--mode", mode] if command is ask else [old, "--mode", mode]
            said = refused(capsys, command, *given)
            assert (
                said == f"error: mode {mode}: this model's folder holds no known pairs; train again, or use mode free"
            )


@pytest.mark.parametrize("mode", [None, *MODES])
def test_evaluate_counts_what_ask_answers(run, tmp_path, capsys, monkeypatch, mode):
    monkeypatch.chdir(tmp_path)
    chosen = ["--mode", mode] if mode else []
    assert evaluate.main([str(run), "--split", "validation", "--json", "--out", "out", *chosen]) == 0
    printed = capsys.readouterr().out
    board = json.loads(printed)
    assert "NaN" not in printed
    records = [json.loads(line) for line in (tmp_path / "out" / "answers.jsonl").read_text().splitlines()]
    (tmp_path / "questions.txt").write_text("".join(f"{record['question']}\n" for record in records))
    lines, _ = asked(capsys, run, "--file", "questions.txt", "--json", *chosen)
    for line, record in zip(lines, records, strict=True):
        answer = json.loads(line)
        assert (record["generated"], record["stopped"]) == (answer["answer"], answer["stopped"])
        assert record["exact_match"] == (answer["answer"] == record["answer"])
        for name in ("probability", "log_probability"):
            assert record[name] == (answer[name] if answer[name] is None else pytest.approx(answer[name], abs=1e-4))
    right = sum(record["exact_match"] for record in records) / len(records)
    assert board["rows"][0]["exact_match"]["value"] == pytest.approx(right)
    assert ("known_answers" in board) == (mode != "free")
    if mode != "free":
        rows = {row["mode"]: row["exact_match"]["value"] for row in board["known_answers"]["rows"]}
        row = {"nearest": "nearest (TF-IDF)", None: "best"}.get(mode, mode)
        assert rows[row] == pytest.approx(right)
    assert (board["confidence"] is not None) == (mode in (None, "best"))


def test_evaluate_abstains_in_mode_best(run, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = written(tmp_path / "new.jsonl", OTHERS)
    assert evaluate.main([str(run), f"data.path={path}", "--precision", "0.9"]) == 0
    printed = capsys.readouterr().out
    assert "\nall pairs" in printed
    assert "best (default)" in printed
    assert 'Saying "I don\'t know" below a probability of 0.' in printed
    records = [
        json.loads(line) for line in (tmp_path / "evaluation" / "run" / "answers.jsonl").read_text().splitlines()
    ]
    answered = [record["exact_match"] for record in records if not record["abstained"]]
    assert len(records) == len(OTHERS.questions) > len(answered) > 0
    assert sum(answered) / len(answered) > 0.85
    said = refused(capsys, evaluate, run, "--mode", "nearest", "--precision", "0.9")
    assert "has no calibration" in said


def test_a_run_whose_known_answers_are_damaged(run, tmp_path, capsys):
    bad = shutil.copytree(run, tmp_path / "bad")
    (bad / "model" / "known_answers.json").write_text("{}")
    assert "known_answers.json: is not valid" in refused(capsys, ask, bad, QUESTION)


def test_the_board_of_the_run_holds_the_modes(run):
    board = json.loads((run / "board.json").read_text())
    known = board["known_answers"]
    assert known["default_mode"] == "best"
    assert {row["split"] for row in known["rows"]} == {"validation"}
    assert [row["mode"] for row in known["rows"]] == ["free", "known", "nearest (TF-IDF)", "best"]
    assert all(math.isfinite(row["exact_match"]["value"]) for row in known["rows"])

"""scripts/evaluate.py and the sureness that scripts/ask.py shows: runs, other models, errors."""

import dataclasses
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers.processors import TemplateProcessing
from transformers import AutoModelForCausalLM, AutoTokenizer

from qa_lm.data.pairs import Pair
from qa_lm.data.tokenizer import train_bpe
from qa_lm.evaluation.calibrate import fit_calibration
from qa_lm.inference.calibration import Calibration
from qa_lm.inference.external import ExternalModel
from qa_lm.modeling.causal_lm import build_causal_lm
from tests.conftest import builtin
from tests.scripts_as_modules import ask, evaluate


@pytest.fixture
def run(learnt_run, tmp_path):
    """A run whose model has a calibration."""
    folder = tmp_path / "run"
    shutil.copytree(learnt_run.folder, folder)
    draw = np.random.default_rng(0)
    x = -draw.exponential(0.3, 400)
    fit_calibration(x, draw.random(400) < np.exp(4 * x), {"validation": 400}).save(folder / "model")
    return folder


def test_a_runs_own_pairs_give_its_own_board(run, learnt_run, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert evaluate.main([str(run)]) == 0
    printed = capsys.readouterr().out
    assert printed.splitlines()[-1] == "evaluation/run"
    assert "trained pairs" in printed
    found = json.loads(Path("evaluation/run/board.json").read_text())
    before = json.loads((learnt_run.folder / "board.json").read_text())
    assert [row["n"] for row in found["rows"]] == [row["n"] for row in before["rows"]]
    assert [row["exact_match"] for row in found["rows"]] == [row["exact_match"] for row in before["rows"]]
    answers = [json.loads(line) for line in Path("evaluation/run/answers.jsonl").read_text().splitlines()]
    assert [a["generated"] for a in answers] == [a.generated for a in learnt_run.answers]
    assert all(0 <= a["probability"] <= 1 for a in answers)

    assert evaluate.main([str(run), "--split", "validation", "--json", "--out", "one"]) == 0
    assert json.loads(capsys.readouterr().out)["rows"][0]["name"] == "all held-out pairs"


def test_other_files_and_abstaining(run, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("faq.csv").write_text("q;a\n".replace(";", ",") + "How are you?,Fine\nWhat is 7 + 7?,14\n")
    data = ["data.path=faq.csv", "data.question=q", "data.answer=a"]
    assert evaluate.main([str(run), *data, "--abstain-below", "0.5"]) == 0
    printed = capsys.readouterr().out
    answers = [json.loads(line) for line in Path("evaluation/run/answers.jsonl").read_text().splitlines()]
    assert [a["question"] for a in answers] == ["How are you?", "What is 7 + 7?"]
    assert {a["split"] for a in answers} == {"given"}
    assert answers[0]["relation"] == "trained question"
    assert [a["abstained"] for a in answers] == [a["probability"] < 0.5 for a in answers]
    count = sum(not a["abstained"] for a in answers)
    assert f"below a probability of 0.500, it answers {count} of 2 given pairs ({count / 2:.1%})" in printed
    assert "Its probabilities are calibrated on 400 held-out pairs." in printed


def test_a_precision_is_claimed_as_it_is_counted(run, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert ask.main([str(run), "How are you?", "--precision", "0.6"]) == 0
    claimed = re.search(r"note: answers with a probability below (\S+) are withheld; on 400", capsys.readouterr().err)
    assert claimed
    assert evaluate.main([str(run), "--precision", "0.6"]) == 0
    printed = capsys.readouterr().out
    answers = [json.loads(line) for line in Path("evaluation/run/answers.jsonl").read_text().splitlines()]
    answered = sum(not a["abstained"] for a in answers if a["split"] == "validation")
    assert f"below a probability of {claimed[1]}, it answers {answered} of 2 held-out pairs" in printed


@pytest.mark.parametrize("program", [ask.main, evaluate.main])
def test_too_few_right_held_out_answers_are_refused(run, program, capsys):
    calibration = Calibration.load(run / "model")
    assert calibration
    few = dataclasses.replace(calibration, held_out={"pairs": 24, "right": 3, "needed": 20})
    few.save(run / "model")
    question = ["How are you?"] if program is ask.main else []
    assert program([str(run), *question, "--precision", "0.5"]) == 2
    found = capsys.readouterr()
    assert found.err.startswith(
        "error: --precision: only 3 of 24 answers to held-out questions are right, and at least"
    )
    assert (found.out, len(found.err.splitlines())) == ("", 1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["none"], "error: none: no such folder"),
        (["{run}", "data.pth=x"], "error: data.pth: no such setting; did you mean data.path?"),
        (["{run}", "faq.jsonl"], "error: faq.jsonl: give settings of the data as data.KEY=VALUE"),
        (["{run}", "data.path=none.jsonl"], "none.jsonl"),
        (["{run}", "data.path=none.jsonl", "--split", "test"], "error: --split is of the run's own pairs"),
        (["{run}", "--split", "test"], "error: --split test: this run has no such pairs"),
        (["{run}", "--precision", "1.5"], "error: --precision must be from 0 to 1"),
        (["{run}", "--precision", "0.5", "--abstain-below", "0.5"], "error: give --abstain-below or --precision"),
        (["{run}", "--template", "{question}"], "error: --template is for other models"),
        (["{run}/model"], "not a run folder; name the pairs: data.path=FILE"),
        (["{run}", "data.path=long.jsonl"], "tokens; the context of this model is 256"),
        (["{run}", "--max-pairs", "0"], "error: --max-pairs must be at least 1"),
    ],
)
def test_mistakes_in_evaluating(run, arguments, message, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("long.jsonl").write_text(json.dumps({"question": "word " * 900, "answer": "b"}) + "\n")
    assert evaluate.main([argument.replace("{run}", str(run)) for argument in arguments]) == 2
    found = capsys.readouterr()
    assert message in found.err
    assert (found.out, len(found.err.splitlines())) == ("", 1)
    assert not Path("evaluation").exists()


def test_a_run_whose_file_has_changed_is_refused(run, capsys):
    environment = json.loads((run / "environment.json").read_text())
    (run / "environment.json").write_text(json.dumps(environment | {"data_sha256": "other"}))
    assert evaluate.main([str(run)]) == 2
    assert "tutorial: has changed since this run was trained; name the pairs" in capsys.readouterr().err


@pytest.fixture
def chat_model(tmp_path):
    """A Llama whose tokenizer puts BOS in front of every text and brings a chat template; its weights are fresh."""
    folder = tmp_path / "chat"
    folder.mkdir()
    train_bpe(["what is one plus two ? three four five six no " * 20], 300).save(folder, 64)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_special_tokens({"bos_token": "<s>", "additional_special_tokens": ["<user>", "<bot>"]})
    tokenizer.split_special_tokens = False
    tokenizer.chat_template = "<user>{{ messages[0]['content'] }}<bot>"
    bos = tokenizer.convert_tokens_to_ids("<s>")
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", bos)])
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    model = build_causal_lm("llama", len(tokenizer), 32, 1, 2, 64, 0.0, tokenizer.eos_token_id)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.normal_(0, 0.4)
        model.get_output_embeddings().weight[tokenizer.eos_token_id] *= 3  # so that some answers end
    model.save_pretrained(folder)
    return folder


@pytest.mark.parametrize(
    ("template", "before", "after"), [("chat", "<user>", "<bot>"), ("{question} no", "<s>", " no")]
)
def test_a_model_of_others_is_asked_as_its_own_tokenizer_asks(chat_model, template, before, after):
    model, tokenizer = ExternalModel.load(chat_model, template), AutoTokenizer.from_pretrained(chat_model)
    assert model.use_drafts
    (example,) = model.examples([Pair("what is one ?", "two three")])
    wanted = tokenizer(f"{before}what is one ?{after}", add_special_tokens=False).input_ids
    assert example.ids[: example.prompt_tokens] == wanted
    assert wanted[0] == tokenizer.convert_tokens_to_ids(before)
    answer = "two three" if template == "chat" else " two three"
    assert example.answer_ids == [*tokenizer(answer, add_special_tokens=False).input_ids, tokenizer.eos_token_id]


def test_a_model_of_others_is_evaluated(chat_model, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model, tokenizer = AutoModelForCausalLM.from_pretrained(chat_model), AutoTokenizer.from_pretrained(chat_model)

    def answer(question):
        ids = tokenizer(f"<user>{question}<bot>", add_special_tokens=False, return_tensors="pt").input_ids
        output = model.generate(ids, do_sample=False, max_new_tokens=40, pad_token_id=0, eos_token_id=0)[
            0, ids.shape[1] :
        ].tolist()
        return str(tokenizer.decode(output, skip_special_tokens=True)).strip(), 0 in output

    questions = [f"{word}{number} is {number * 7919}?" for number in range(15) for word in ("one", "Wer", "Ω", "x y")]
    truth = {question: answer(question) for question in questions}
    # Longer ones would raise the limit of all.
    stopping = [question for question, (text, stops) in truth.items() if stops and 0 < len(text) < 12]
    assert stopping
    with Path("pairs.jsonl").open("w") as file:
        for number, question in enumerate(questions):
            right = question in stopping and number % 2 == 0
            pair = {"question": question, "answer": truth[question][0] if right else "four four four"}
            file.write(json.dumps(pair) + "\n")
    assert evaluate.main([str(chat_model), "data.path=pairs.jsonl", "--max-new-tokens", "40"]) == 2
    assert "was not written by qa_lm; give its prompt: --template chat" in capsys.readouterr().err
    arguments = ["data.path=pairs.jsonl", "--template", "chat", "--max-new-tokens", "40", "--out", "out"]
    assert evaluate.main([str(chat_model), *arguments]) == 0
    answers = [json.loads(line) for line in Path("out/answers.jsonl").read_text().splitlines()]
    assert {a["question"]: (a["generated"], a["stopped"]) for a in answers} == truth
    for a in answers:
        assert a["exact_match"] == (a["stopped"] and a["generated"] == a["answer"])
    assert any(a["exact_match"] for a in answers)
    assert evaluate.main([str(chat_model), *arguments, "--precision", "0.5"]) == 2
    assert "has no calibration" in capsys.readouterr().err


def test_ask_explains_and_says_when_it_does_not_know(run, capsys):
    question = builtin("tutorial")[0].question
    assert ask.main([str(run), question, "--explain"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].startswith("  right with probability ")
    assert lines[2].startswith("  this question: ")
    assert len(lines) == 6
    assert ask.main([str(run), question, "--abstain-below", "1"]) == 0
    said = capsys.readouterr()
    assert (said.out, said.err) == ("I don't know\n", "note: probabilities are calibrated on 400 held-out pairs\n")
    assert ask.main([str(run), question, "--abstain-below", "0", "--json", "--explain"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["abstained"] is False
    assert record["question_is"] in ("trained", "near-duplicate of a trained question", "not trained")
    assert len(record["nearest"]) == 3
    assert ask.main([str(run / "model"), question, "--explain"]) == 2
    assert "holds no ledger.parquet; give the folder of a finished run" in capsys.readouterr().err
    (run / "model" / "confidence.json").unlink()
    assert ask.main([str(run), question, "--precision", "0.9"]) == 2
    assert "has no calibration" in capsys.readouterr().err

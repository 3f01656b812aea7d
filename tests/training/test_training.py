"""Whole runs, small ones: what they leave, when they stop, what they keep."""

import csv
import json
import re
from typing import Any

import pytest
import torch
import yaml
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from transformers import AutoModelForCausalLM, AutoTokenizer

from qa_lm.config.enums import OptimizerKind, Weights
from qa_lm.errors import UserError
from qa_lm.reporting.loss_curve import draw_loss_curve
from qa_lm.reporting.run.table import answers_table
from qa_lm.training.train import train
from tests.conftest import ROOT, small_config, weights


def rows_of(folder):
    with (folder / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


def test_the_run_folder_holds_what_it_promises(small_run):
    folder = small_run.folder
    draw_loss_curve(folder)
    events = [path.name for path in folder.glob("events.out.tfevents.*")]
    names = {path.name for path in folder.iterdir()} - set(events)
    assert len(events) == 1
    assert names == {
        *("config.yaml", "metrics.csv", "metrics.json", "loss_curve.png", "answers.jsonl"),
        *("checkpoints", "model", "environment.json", "data_report.json", "split.csv"),
        *("ledger.parquet", "ledger_summary.json", "board.json", ".lock", "train", "validation"),
    }
    checkpoints = {"best.ckpt", "last.ckpt", "manifest.json", "model"}
    found = {path.name for path in (folder / "checkpoints").iterdir()}
    assert found - {"previous.ckpt"} == checkpoints  # one of its own only in a run that takes long
    assert (folder / "loss_curve.png").read_bytes().startswith(b"\x89PNG")
    config = yaml.safe_load((folder / "config.yaml").read_text())
    assert config["model"]["hidden_size"] == 64
    assert config["trainer"]["max_epochs"] == 25
    environment = json.loads((folder / "environment.json").read_text())
    assert environment["seed"] == 42
    assert environment["packages"]["torch"] == torch.__version__
    assert len(environment["data_sha256"]) == 64


def test_metrics_and_answers_agree(small_run):
    metrics = json.loads((small_run.folder / "metrics.json").read_text())
    answers = [json.loads(line) for line in (small_run.folder / "answers.jsonl").read_text().splitlines()]
    rows = rows_of(small_run.folder)
    assert [int(row["epoch"]) for row in rows] == list(range(1, 26))
    best = min(rows, key=lambda row: float(row["val_loss"]))
    assert metrics["best_epoch"] == int(best["epoch"])
    assert metrics["best_val_loss"] == float(best["val_loss"]) == small_run.objective
    trained = [answer for answer in answers if answer["split"] == "train"]
    assert (len(trained), len(answers)) == (8, 10)
    assert metrics["recall"] == sum(answer["exact_match"] for answer in trained) / 8
    assert all(answer["exact_match"] <= (answer["generated"] == answer["answer"]) for answer in answers)


def test_a_small_file_is_learnt_to_the_last_pair(tmp_path):
    """Each pair stands three times, so that validation gets better as long as training does."""
    lines = (ROOT / "qa_lm" / "data" / "builtin" / "tutorial.jsonl").read_text()
    (tmp_path / "three.jsonl").write_text(lines * 3)
    changes = {"data__path": str(tmp_path / "three.jsonl"), "early_stopping__patience": None}
    config = small_config(**changes, data__batch_size=4)
    config.trainer["max_epochs"] = 35
    config.data.shuffle = True
    config.optimizer.kind, config.optimizer.lr, config.optimizer.betas = OptimizerKind.muon, 5e-3, (0.9, 0.95)
    result = train(config, tmp_path / "run")
    assert result.metrics["recall"] == result.metrics["val_exact_match"] == 1
    assert {answer.generated == answer.answer for answer in result.answers} == {True}


def test_best_is_the_best_and_last_the_last(small_run):
    best, last = (
        torch.load(small_run.folder / "checkpoints" / name, weights_only=True) for name in ("best.ckpt", "last.ckpt")
    )
    assert best["epoch"] + 1 == small_run.metrics["best_epoch"] < 25
    assert last["epoch"] + 1 == 25
    exported = AutoModelForCausalLM.from_pretrained(small_run.folder / "model").state_dict()
    same = {name: torch.equal(tensor, best["state_dict"][f"model.{name}"]) for name, tensor in exported.items()}
    assert all(same.values())
    assert any(not torch.equal(tensor, last["state_dict"][f"model.{name}"]) for name, tensor in exported.items())


@pytest.mark.parametrize("which", ["best", "last"])
def test_the_exported_weights_are_those_asked_for(tmp_path, which):
    config = small_config(optimizer__lr=0.05, trainer__max_epochs=40, export_weights=Weights(which))
    result = train(config, tmp_path / "run")
    assert result.metrics["best_epoch"] < result.metrics["epochs_run"]
    checkpoint = torch.load(tmp_path / "run" / "checkpoints" / f"{which}.ckpt", weights_only=True)["state_dict"]
    exported = AutoModelForCausalLM.from_pretrained(tmp_path / "run" / "model").state_dict()
    assert all(torch.equal(tensor, checkpoint[f"model.{name}"]) for name, tensor in exported.items())


def test_transformers_alone_loads_the_model_and_answers_alike(small_run):
    folder = small_run.folder / "model"
    model: Any = AutoModelForCausalLM.from_pretrained(folder)
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    assert {path.suffix for path in folder.iterdir()} == {".json", ".jinja", ".jsonl", ".safetensors"}
    for answer in small_run.answers:
        ids = tokenizer(answer.question, return_tensors="pt")
        output = model.generate(**ids, max_new_tokens=64, do_sample=False)
        text = tokenizer.decode(output[0, ids["input_ids"].shape[1] :], skip_special_tokens=True)
        assert text.removeprefix(" ") == answer.generated
    assert tokenizer("a<|endoftext|>")["input_ids"][-1] != tokenizer.eos_token_id


def test_tensorboard_has_the_curves_the_answers_and_the_hyperparameters(small_run):
    events = EventAccumulator(str(small_run.folder))
    events.Reload()
    tags = events.Tags()
    assert {"train/loss", "val/loss", "val/exact_match", "perf/tokens_per_s", "optim/lr"} <= set(tags["scalars"])
    assert [round(e.value, 4) for e in events.Scalars("val/loss")] == [
        round(float(row["val_loss"]), 4) for row in rows_of(small_run.folder)
    ]
    best = events.Scalars("learning results/best_val_loss")[-1].value
    assert best == pytest.approx(small_run.metrics["best_val_loss"])
    assert {"answers/text_summary", "board/text_summary"} <= set(tags["tensors"])
    assert "_hparams_/session_start_info" in events.summary_metadata


def test_the_end_says_plainly_what_was_never_trained(small_run):
    table = answers_table(small_run.folder)
    assert re.search(r"What is the capital of France\? .* no\n", table)
    assert "questions that were never trained" in table


def test_the_table_is_straight_where_characters_are_wide(tmp_path):
    texts = ["누구?", "Où est le cafe\u0301?", "plain", "긴 " * 5000]
    answers = [
        {"question": text, "answer": "a", "generated": "b", "exact_match": False, "split": "train", "held_out": ""}
        | {"normalised_exact_match": False}
        for text in texts
    ]
    (tmp_path / "answers.jsonl").write_text("".join(json.dumps(answer) + "\n" for answer in answers))
    metrics = {"best_epoch": 1, "epochs_run": 1, "best_val_loss": None, "seconds": 1.0}
    (tmp_path / "metrics.json").write_text(json.dumps(metrics))
    (tmp_path / "board.json").write_text(json.dumps({"rows": [], "stopping": [], "warnings": []}))
    rows = answers_table(tmp_path).splitlines()[2:6]
    begins = [row.index(" b ") for row in rows]
    # Two columns for each Hangul syllable, none for the accent.
    assert begins == [begins[2] - 2, begins[2] + 1, begins[2], begins[2] - rows[3].count("긴")]
    assert rows[3].startswith("긴 긴 ")
    assert "..." in rows[3]


def test_early_stopping_stops_after_patience_epochs_without_improvement(tmp_path, capsys):
    # A learning rate at which validation gets worse from the second epoch on.
    config = small_config(optimizer__lr=0.05, trainer__max_epochs=40)
    result = train(config, tmp_path / "run")
    losses = [float(row["val_loss"]) for row in rows_of(result.folder)]
    best = losses.index(min(losses))
    assert result.metrics["stopped_early"]
    assert result.metrics["epochs_run"] == len(losses) == best + 1 + 5 < 40
    output = capsys.readouterr().out
    assert "no improvement (5/5)" in output
    assert f"Stopped early: val/loss has not improved for 5 epochs in a row (best: {min(losses):.4f})." in output


def test_without_patience_it_never_stops(tmp_path):
    config = small_config(optimizer__lr=0.05, trainer__max_epochs=12, early_stopping__patience=None)
    assert train(config, tmp_path / "run").metrics["epochs_run"] == 12


@pytest.mark.parametrize("change", [{}, {"model__dropout": 0.1, "data__shuffle": True, "data__batch_size": 3}])
def test_same_seed_same_run(tmp_path, change):
    first, second, other = (
        train(small_config(**change, seed=seed), tmp_path / name) for name, seed in (("a", 1), ("b", 1), ("c", 2))
    )
    csvs = [(result.folder / "metrics.csv").read_bytes() for result in (first, second, other)]
    assert csvs[0] == csvs[1] != csvs[2]
    for name, tensor in weights(first).items():
        assert torch.equal(tensor, weights(second)[name]), name


def test_equals_the_hand_written_loop_epoch_by_epoch(script, tmp_path):
    """On a narrow model with GPT-2's vocabulary; the slow test does the tutorial's own size."""
    size = ["--width", "64", "--layers", "2", "--heads", "2", "--epochs", "3", "--seed", "3"]
    by_hand = json.loads(script("../examples/tutorial_loop.py", *size).stdout)
    config = small_config(seed=3, tokenizer__kind="gpt2", optimizer__lr=5e-5)
    train(config, tmp_path / "run")
    for row, expected in zip(rows_of(tmp_path / "run"), by_hand["epochs"], strict=True):
        assert float(row["train_loss"]) == pytest.approx(expected["train_loss"], abs=1e-4)
        assert float(row["val_loss"]) == pytest.approx(expected["val_loss"], abs=1e-4)


def test_a_folder_that_holds_a_run_is_not_written_over(small_run):
    before = (small_run.folder / "metrics.json").read_bytes()
    with pytest.raises(UserError, match="already holds a run"):
        train(small_config(), small_run.folder)
    assert (small_run.folder / "metrics.json").read_bytes() == before


@pytest.mark.parametrize(
    "arguments",
    [
        {"limit_val_batches": 0},
        {"fast_dev_run": True},
        {"check_val_every_n_epoch": 2},
        {"max_steps": 5},
    ],
)
def test_unusual_trainer_arguments_still_end_well(tmp_path, arguments):
    result = train(small_config(**{f"trainer__{name}": value for name, value in arguments.items()}), tmp_path / "run")
    assert (result.folder / "model" / "model.safetensors").exists()
    assert json.loads((result.folder / "metrics.json").read_text())["steps"] == result.metrics["steps"] > 0


def test_an_epoch_without_a_validation_shows_none(tmp_path, capsys):
    train(small_config(trainer__max_epochs=4, trainer__check_val_every_n_epoch=2), tmp_path / "run")
    assert [row["val_loss"] != "" for row in rows_of(tmp_path / "run")] == [False, True, False, True]
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("epoch")]
    assert ["val loss" in line for line in lines] == [False, True, False, True]

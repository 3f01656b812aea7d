"""Files of a handful of pairs: learnt by the recipe, with or without a validation."""

import csv
import gzip
import itertools
import json

import pytest
import yaml

from qa_lm.config.compose import implied_choices
from qa_lm.config.enums import Mode
from qa_lm.errors import UserError
from qa_lm.inference.answerer import Answerer
from qa_lm.training.train import train
from tests.conftest import SHARED_DATA, small_config
from tests.scripts_started import ROOT
from tests.training.test_recall import open_config

LAMPS = "north south east west upper lower inner outer first second third left right front back old new tall wide low"
COLOURS = "red blue green white black amber grey pink teal gold"


def write_lamps(folder, count):
    """Pairs that differ in a word of the question and one of the answer, as a small shop's do."""
    colours = COLOURS.split() * 2
    lamps = zip(LAMPS.split()[:count], colours[:count], strict=True)
    pairs = [{"question": f"What colour is the {a} lamp?", "answer": f"The {a} lamp is {b}."} for a, b in lamps]
    path = folder / "lamps.jsonl"
    path.write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
    return str(path), pairs


def recall_config(path, **changes):
    return open_config(
        data__path=path,
        data__split="question",
        data__prompt="{question}\n",
        stop_at_recall=0.99,
        monitor="train/recall",
        monitor_mode=Mode.max,
        early_stopping__patience=None,
        trainer__max_epochs=None,
        **changes,
    )


@pytest.mark.parametrize("count", [2, 3, 20])
def test_the_recipe_learns_every_trained_pair_of_a_small_file(tmp_path, count):
    path, _ = write_lamps(tmp_path, count)
    metrics = train(recall_config(path), tmp_path / "run").metrics
    assert metrics["recall"] == 1
    assert metrics["stopped_early"]
    assert metrics["pairs_trained"] == max(1, int(0.8 * count))


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize("count", [2, 5, 20, 120])
@pytest.mark.parametrize("name", ["nq_open_dev", "webquestions", "korean_chatbot", "gsm8k_test", "tldr_en"])
def test_the_first_pairs_of_real_files_are_learnt(script, tmp_path, name, count, seed):
    if not SHARED_DATA.is_dir():
        pytest.skip(f"{SHARED_DATA} is not there")
    with gzip.open(SHARED_DATA / f"{name}.jsonl.gz", "rt", encoding="utf-8") as file:
        (tmp_path / "pairs.jsonl").write_text("".join(itertools.islice(file, count)), encoding="utf-8")
    settings = ("experiment=recall", "data.path=pairs.jsonl", f"seed={seed}", f"data.split_seed={seed}")
    done = script("train.py", *settings, "hydra.run.dir=run")
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "run" / "data_report.json").read_text())
    assert report["contradictions"]["best_recall"] == 1
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    # One long answer is not always learnt: docs/log.md, "longer rows that are filled worse".
    missed = round((1 - metrics["recall"]) * metrics["pairs_trained"])
    assert missed <= (1 if (name, count) == ("gsm8k_test", 120) else 0)


@pytest.mark.parametrize("count", [1, 3])
def test_all_pairs_of_a_file_can_be_trained(tmp_path, count):
    path, pairs = write_lamps(tmp_path, count)
    result = train(recall_config(path, data__train_fraction=1.0), tmp_path / "run")
    metrics = result.metrics
    assert (metrics["pairs_trained"], metrics["pairs_validation"]) == (count, 0)
    assert metrics["recall"] == 1
    assert (metrics["best_val_loss"], metrics["val_exact_match"]) == (None, None)
    board = json.loads((result.folder / "board.json").read_text())
    assert [(row["name"], row["n"]) for row in board["rows"]] == [("trained pairs", count)]
    assert board["confidence"] is None
    answers = Answerer.load(result.folder).answer([pair["question"] for pair in pairs], 64)
    assert [each.answer for each in answers] == [pair["answer"] for pair in pairs]
    assert "nan" not in (result.folder / "metrics.csv").read_text().lower()


@pytest.mark.parametrize("kind", ["shuffle", "question", "near"])
def test_without_a_validation_the_best_checkpoint_follows_recall_and_nothing_stops_early(tmp_path, capsys, kind):
    config = small_config(data__train_fraction=1.0, data__split=kind, trainer__max_epochs=9, early_stopping__patience=1)
    result = train(config, tmp_path / "run")
    assert result.metrics["epochs_run"] == 9
    assert result.metrics["pairs_trained"] == 10
    kept = yaml.safe_load((result.folder / "config.yaml").read_text())
    assert (kept["monitor"], kept["monitor_mode"], kept["early_stopping"]["patience"]) == ("train/recall", "max", None)
    rows = list(csv.DictReader((result.folder / "metrics.csv").open()))
    assert all(row["val_loss"] == "" and row["train_recall"] for row in rows)
    shown = capsys.readouterr().out
    assert "10 pairs, 10 for training, none held out" in shown
    assert "no validation: the best checkpoint is chosen by train/recall" in shown


def test_without_a_validation_and_a_recall_sample_nothing_can_choose_the_best(tmp_path):
    config = small_config(data__train_fraction=1.0, evaluation__recall_pairs=0)
    with pytest.raises(UserError, match=r"evaluation.recall_pairs=0: must be at least 1 with data.train_fraction=1.0"):
        train(config, tmp_path / "run")


@pytest.mark.parametrize(
    ("arguments", "implied"),
    [
        (["data.path=a.csv"], ["data=file"]),
        (["experiment=recall", "data.path=[a.csv,b.csv]"], ["data=file"]),
        (["-m", "data.path=a.csv,b.csv", "seed=1,2"], ["data=file"]),
        (["data.hub=squad"], ["data=hub"]),
        (["data=mine", "data.path=a.csv"], []),
        (["experiment=not_one_of_ours", "data.path=a.csv"], []),
        (["data.path_of=a.csv"], []),
        (["experiment=capitals"], []),
    ],
)
def test_a_file_of_pairs_implies_the_choice_of_its_group(arguments, implied):
    assert implied_choices(arguments, ROOT / "conf") == implied


def test_one_command_learns_a_file_of_ones_own(script, tmp_path):
    write_lamps(tmp_path, 20)
    done = script("train.py", "experiment=recall", "data.path=lamps.jsonl", "hydra.run.dir=run")
    assert done.returncode == 0, done.stderr
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics["recall"] == 1


def test_a_file_alone_is_trained_with_the_default_settings(script, tmp_path):
    write_lamps(tmp_path, 5)
    small = ("model.hidden_size=32", "model.layers=1", "model.heads=1", "trainer.max_epochs=1")
    done = script("train.py", "data.path=lamps.jsonl", *small, "tokenizer=bpe", "hydra.run.dir=run")
    assert done.returncode == 0, done.stderr
    kept = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    assert (kept["data"]["path"], kept["data"]["shuffle"]) == ("lamps.jsonl", True)

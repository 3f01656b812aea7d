"""The loggers beside TensorBoard get what it gets, once, also when a run is gone on with, and cannot end a run."""

import importlib.util
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning.pytorch.loggers import CSVLogger

from qa_lm.config.schema import LoggerConfig, TrainConfig
from qa_lm.errors import UserError
from qa_lm.training.logging.hyperparameters import flat_hyperparameters
from qa_lm.training.logging.logged import read_record
from qa_lm.training.logging.loggers import without_password
from qa_lm.training.logging.tensorboard import END, RESULTS
from qa_lm.training.train import train
from tests.conftest import small_config, weights_in
from tests.faults.resume.interrupting import broken_off, interrupted
from tests.faults.test_tensorboard import CLOCKS, curves
from tests.training.logger_files import GOT, Points, of_csv, of_wandb


def needs(package: str, extra: str) -> list[pytest.MarkDecorator]:
    missing = importlib.util.find_spec(package) is None
    return [pytest.mark.slow, pytest.mark.skipif(missing, reason=f"needs {package}: pip install -e '.[{extra}]'")]


WANDB, MLFLOW = needs("wandb", "wandb"), needs("mlflow", "mlflow")
KINDS = ["csv", pytest.param("wandb", marks=WANDB), pytest.param("mlflow", marks=MLFLOW)]


@pytest.fixture(autouse=True)
def offline(tmp_path, monkeypatch):
    """No key, no server, and a store of the test's own."""
    for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    to_store(f"sqlite:///{tmp_path}/mlflow.db", monkeypatch)
    yield
    if importlib.util.find_spec("wandb"):
        import wandb

        wandb.teardown()


def to_store(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    if importlib.util.find_spec("mlflow"):
        import mlflow

        mlflow.set_tracking_uri(address)


def configuration(kind: str, **more: object) -> TrainConfig:
    config = small_config(data__shuffle=True, model__dropout=0.2, trainer__log_every_n_steps=1, **more)
    config.early_stopping.patience = None
    config.logger = LoggerConfig(kind)
    return config


def same_as_tensorboard(folder: Path, points: Points) -> None:
    wanted = {tag.replace(RESULTS, END): found for tag, found in curves(folder).items()}
    points = {tag: sorted(found) for tag, found in points.items() if tag not in CLOCKS}
    assert points.keys() == wanted.keys() > {"train/loss_step", "val/loss", "end/best_val_loss", "end/recall"}
    for tag, found in points.items():
        assert [step for step, _ in found] == [step for step, _ in wanted[tag]], tag
        np.testing.assert_array_equal(
            np.array([value for _, value in found], np.float32), [value for _, value in wanted[tag]]
        )


@pytest.mark.parametrize("kind", KINDS)
def test_it_gets_what_tensorboard_gets_and_changes_nothing(kind, tmp_path, capfd):
    config = configuration(kind)
    train(config, tmp_path / "with")
    printed = capfd.readouterr()
    train(configuration("tensorboard"), tmp_path / "without")
    points, settings = GOT[kind](tmp_path / "with")
    same_as_tensorboard(tmp_path / "with", points)
    wanted = flat_hyperparameters(config)
    assert settings.keys() >= wanted.keys()
    assert settings["optimizer.lr"] == "0.003"
    assert not any(name.startswith("logger.") for name in settings)
    with_it, without = weights_in(tmp_path / "with"), weights_in(tmp_path / "without")
    assert all(torch.equal(with_it[name], without[name]) for name in without)
    of_it = printed.out.count(f"{kind}: ")
    assert of_it == (0 if kind == "csv" else 1)
    assert len(printed.out.splitlines()) == len(capfd.readouterr().out.splitlines()) + of_it
    assert "wandb" not in printed.err
    assert "mlflow" not in printed.err.lower()


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_that_is_gone_on_with_is_one_run_with_each_value_once(kind, tmp_path):
    folder = interrupted(configuration(kind), tmp_path / "run", "training_step", 11)
    train(configuration(kind, resume="auto"), folder)
    same_as_tensorboard(folder, GOT[kind](folder)[0])


@pytest.mark.parametrize("kind", KINDS)
def test_steps_that_are_done_again_are_not_logged_again(kind, tmp_path):
    config = configuration(kind)
    config.checkpoint.every_steps = 5
    broken_off(config, tmp_path / "run", 15)
    logged = read_record(tmp_path / "run" / "logger.jsonl")
    assert max(step for step, _ in logged.rows) == 14  # the checkpoint is of step 10
    config.resume = "auto"
    train(config, tmp_path / "run")
    same_as_tensorboard(tmp_path / "run", GOT[kind](tmp_path / "run")[0])


def test_a_logger_that_is_chosen_later_gets_what_the_one_before_had(tmp_path, capsys):
    folder = interrupted(configuration("csv"), tmp_path / "run", "training_step", 11)
    train(configuration("csv", resume="auto", logger=LoggerConfig("csv", "other")), folder)
    same_as_tensorboard(folder, of_csv(folder)[0])


@pytest.mark.parametrize("kind", ["wandb", "mlflow"])
def test_a_missing_package_is_named_before_anything_is_done(kind, tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=rf'^logger={kind}: needs the package {kind}: pip install -e "\.\[{kind}\]"$'):
        train(configuration(kind), tmp_path / "run")
    assert not (tmp_path / "run" / "config.yaml").exists()


def test_an_error_of_a_logger_is_one_line(tmp_path, monkeypatch, capsys):
    calls = 0

    def fails(self, *arguments):
        nonlocal calls
        calls += 1
        if calls == 5:
            raise RuntimeError("connection to https://me:secret@server lost\nand more")
        return None

    monkeypatch.setattr(CSVLogger, "log_metrics", fails)
    result = train(configuration("csv"), tmp_path / "run")
    assert result.metrics["epochs_run"] == 3
    assert calls == 5
    lines = [line for line in capsys.readouterr().out.splitlines() if "warning: logger" in line]
    words = "connection to https://server lost; nothing more is logged there, training goes on"
    assert lines == [f"warning: logger=csv: {words}"]


def test_passwords_of_addresses_are_not_printed():
    assert without_password("sqlite:////a@b/c") == "sqlite:////a@b/c"
    assert without_password("at postgresql://me:p4ss@host/db: gone") == "at postgresql://host/db: gone"


SILENT = "http://127.0.0.1:9"


@pytest.mark.parametrize("kind", KINDS[1:])
def test_a_server_that_cannot_be_reached(kind, tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    monkeypatch.setenv("WANDB_BASE_URL", SILENT)
    to_store(SILENT, monkeypatch)
    started = time.monotonic()
    result = train(configuration(kind), tmp_path / "run")
    assert time.monotonic() - started < 90
    assert result.metrics["epochs_run"] == 3
    printed = capfd.readouterr()
    said = [line for line in printed.out.splitlines() if f"{kind}: " in line]
    assert len(said) == 1
    if kind == "wandb":  # offline instead
        assert "offline; to upload it: wandb sync " in printed.out
        same_as_tensorboard(tmp_path / "run", of_wandb(tmp_path / "run")[0])
    else:
        assert said[0].startswith("warning: logger=mlflow: ")
    assert "raceback" not in printed.err + printed.out


@pytest.mark.parametrize("kind", KINDS[1:])
def test_the_script_says_one_line_more(kind, script, tmp_path):
    settings = ["model=tiny", "tokenizer=bpe", "tokenizer.vocab_size=300", "trainer.max_epochs=1"]
    done = script("train.py", f"logger={kind}", *settings, "hydra.run.dir=run")
    assert (done.returncode, done.stderr) == (0, "")
    assert len([line for line in done.stdout.splitlines() if line.startswith(f"{kind}: ")]) == 1
    assert not (tmp_path / "wandb").exists()

"""All loggers get what TensorBoard gets, also when a run is resumed, and none of them can end a run."""

import importlib.util
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from lightning.pytorch.loggers import CSVLogger

import qa_lm
from qa_lm.config.compose import resolved_yaml
from qa_lm.config.resume import resumed_config
from qa_lm.config.schema import TrainConfig
from qa_lm.errors import UserError
from qa_lm.run.run_folder import LOGGERS
from qa_lm.training.early_checks import check_early
from qa_lm.training.logging.guarded import GuardedLogger, without_password
from qa_lm.training.logging.hyperparameters import flat_hyperparameters
from qa_lm.training.logging.loggers import build_loggers
from qa_lm.training.logging.tensorboard import END, RESULTS, EventsLogger
from qa_lm.training.train import train
from tests.conftest import ROOT, small_config, weights_in
from tests.faults.resume.interrupting import broken_off, interrupted
from tests.faults.test_tensorboard import CLOCKS, curves
from tests.training.logger_files import GOT, Points, of_csv


def needs(package: str, extra: str) -> list[pytest.MarkDecorator]:
    missing = importlib.util.find_spec(package) is None
    return [pytest.mark.slow, pytest.mark.skipif(missing, reason=f"needs {package}: pip install -e '.[{extra}]'")]


WANDB, MLFLOW = needs("wandb", "wandb"), needs("mlflow", "mlflow")
SERVICES = [pytest.param("wandb", marks=WANDB), pytest.param("mlflow", marks=MLFLOW)]


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


def configuration(*choices: str, **more: object) -> TrainConfig:
    """A run with TensorBoard and these choices of conf/loggers."""
    config = small_config(
        data__shuffle=True, model__dropout=0.2, trainer__log_every_n_steps=1, early_stopping__patience=None, **more
    )
    files = [ROOT / "conf" / "loggers" / f"{choice}.yaml" for choice in choices]
    nodes = [yaml.safe_load(file.read_text()) for file in files]
    return small_changes(config, loggers=dict(config.loggers) | {k: v for node in nodes for k, v in node.items()})


def small_changes(config: TrainConfig, **changes: object) -> TrainConfig:
    for key, value in changes.items():
        setattr(config, key, value)
    return config


def same_as_tensorboard(folder: Path, points: Points) -> None:
    """MLflow takes no commas in names."""
    wanted = {tag.replace(RESULTS, END).replace(",", ""): found for tag, found in curves(folder).items()}
    points = {tag.replace(",", ""): sorted(found) for tag, found in points.items() if tag not in CLOCKS}
    assert points.keys() == wanted.keys() > {"train/loss_step", "val/loss", "end/best_val_loss", "end/recall"}
    for tag, found in points.items():
        assert [step for step, _ in found] == [step for step, _ in wanted[tag]], tag
        np.testing.assert_array_equal(
            np.array([value for _, value in found], np.float32), [value for _, value in wanted[tag]]
        )


@pytest.mark.parametrize("kind", ["csv", *SERVICES])
def test_it_gets_what_tensorboard_gets_and_changes_nothing(kind, tmp_path, capfd):
    config = configuration(kind, name="mine", tags=["first", "of two"])
    train(config, tmp_path / "with")
    printed = capfd.readouterr()
    train(configuration(), tmp_path / "without")
    points, settings = GOT[kind](tmp_path / "with", "mine", "first, of two")
    same_as_tensorboard(tmp_path / "with", points)
    assert settings.keys() >= flat_hyperparameters(config).keys()
    assert settings["optimizer.lr"] == "0.003"
    assert settings["tags"] == "first, of two"
    assert not any(name.startswith("loggers") for name in settings)
    with_it, without = weights_in(tmp_path / "with"), weights_in(tmp_path / "without")
    assert all(torch.equal(with_it[name], without[name]) for name in without)
    of_it = printed.out.count("wandb: offline; to upload it: wandb sync ")
    assert of_it == (kind == "wandb")
    assert len(printed.out.splitlines()) == len(capfd.readouterr().out.splitlines()) + of_it
    assert "wandb" not in printed.err
    assert "mlflow" not in printed.err.lower()


def test_the_csv_files_of_a_resumed_run_have_no_gap(tmp_path):
    """Ended by an error after step 14, with a checkpoint of step 10."""
    config = configuration("csv")
    config.checkpoint.every_steps = 5
    broken_off(config, tmp_path / "run", 15)
    config.resume = "auto"
    train(config, tmp_path / "run")
    assert (tmp_path / "run" / "csv" / "version_1" / "metrics.csv").is_file()
    same_as_tensorboard(tmp_path / "run", of_csv(tmp_path / "run")[0])


@pytest.mark.parametrize("kind", SERVICES)
def test_a_resumed_run_is_the_same_run_in_the_service(kind, tmp_path, monkeypatch, capsys):
    folder = interrupted(configuration(kind), tmp_path / "run", "training_step", 11)
    ids = (folder / LOGGERS).read_text()
    train(configuration(kind, resume="auto", trainer__max_epochs=4), folder)
    assert (folder / LOGGERS).read_text() == ids
    same_as_tensorboard(folder, GOT[kind](folder)[0])
    if kind == "mlflow":  # a store that does not know the run begins a new one
        to_store(f"sqlite:///{tmp_path}/other.db", monkeypatch)
        train(configuration(kind, resume="auto", trainer__max_epochs=5), folder)
        assert (folder / LOGGERS).read_text() != ids
    assert "warning: loggers" not in capsys.readouterr().out


@pytest.mark.parametrize("kind", ["wandb", "mlflow"])
def test_a_missing_package_is_named_before_anything_is_done(kind, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=rf'^loggers\.{kind}: needs the package {kind}: pip install -e "\.\[{kind}\]"$'):
        check_early(configuration(kind))


def test_an_error_of_a_logger_is_one_line(tmp_path, monkeypatch, capsys):
    calls = 0

    def fails(self, *arguments):
        nonlocal calls
        calls += 1
        if calls == 5:
            raise RuntimeError("connection to https://me:secret@server lost\nand more")

    monkeypatch.setattr(CSVLogger, "log_metrics", fails)
    result = train(configuration("csv"), tmp_path / "run")
    assert result.metrics["epochs_run"] == 3
    assert calls == 5
    lines = [line for line in capsys.readouterr().out.splitlines() if "warning: logger" in line]
    words = "connection to https://server lost; nothing more is logged there, training continues"
    assert lines == [f"warning: loggers.csv: {words}"]


def test_a_guarded_logger_has_the_attributes_of_its_own_until_it_fails(tmp_path, capsys):
    logger = GuardedLogger(CSVLogger(tmp_path, name="x"), "loggers.csv")
    assert logger.experiment is logger.logger.experiment  # type: ignore[attr-defined]
    assert (logger.name, logger.version, logger.save_dir) == ("x", 0, str(tmp_path))
    logger.log_metrics({"a": 1.0}, 1)
    logger.finalize("success")  # by the Trainer
    logger.log_metrics({"a": 2.0}, 2)
    logger.close()
    assert (tmp_path / "x" / "version_0" / "metrics.csv").read_text().split() == ["a,step", "1.0,1", "2.0,2"]
    assert not hasattr(logger, "experiment")  # which Lightning would ask for, and which could fail again
    assert capsys.readouterr().out == ""


OWN = """
from lightning.pytorch.loggers import Logger

class Mine(Logger):
    name = version = None

    def __init__(self, save_dir, run_name, level=1):
        super().__init__()
        self.arguments = save_dir, run_name, level

    def log_metrics(self, metrics, step=None): pass
    def log_hyperparams(self, params): pass
"""


def test_a_logger_of_ones_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [str(tmp_path), *sys.path])
    (tmp_path / "own_logger.py").write_text(OWN)
    node = ["loggers=none", "loggers.mine._target_=own_logger.Mine", "loggers.mine.level=2"]
    with pytest.raises(UserError, match="add trust=own_logger"):
        qa_lm.compose(*node)
    (logger,) = build_loggers(qa_lm.compose(*node, "trust=own_logger"), tmp_path / "a" / "run", None)
    assert isinstance(logger, GuardedLogger)
    assert logger.arguments == (tmp_path / "a" / "run", "a/run", 2)


def test_choices_of_loggers(tmp_path):
    def names(*overrides: str) -> list[str]:
        return list(qa_lm.compose(*overrides).loggers)

    assert names() == ["tensorboard"]
    assert names("loggers=csv") == ["csv"]
    assert names("loggers=[tensorboard,csv,wandb]", "loggers.wandb.project=x") == ["tensorboard", "csv", "wandb"]
    assert names("loggers=[]") == names("loggers=none") == []
    events, csv = build_loggers(qa_lm.compose("loggers=[tensorboard,csv]"), tmp_path, 7)
    assert isinstance(events, EventsLogger)
    assert (events.begin, events.save_dir, csv.save_dir) == (7, str(tmp_path), str(tmp_path))
    with pytest.raises(UserError, match="trainer.logger: cannot be set; .*loggers=none"):
        qa_lm.compose("trainer.logger=false")


def test_the_loggers_of_a_resumed_run(tmp_path):
    """Those of the run, if they are choices of conf/loggers or are trusted; others replace them."""
    (tmp_path / "config.yaml").write_text(resolved_yaml(qa_lm.compose("loggers=[csv,wandb]")))

    def resumed(*ours: str, how: str = "auto") -> list[str]:
        overrides = [each for each in ours if each.startswith("loggers")]
        return list(resumed_config(tmp_path, small_changes(qa_lm.compose(*ours), resume=how), overrides).loggers)

    assert resumed(how="run") == ["csv", "wandb"]
    assert resumed("loggers=mlflow", how="run") == ["mlflow"]
    assert resumed("loggers=csv") == ["csv"]
    changed = qa_lm.compose("loggers=csv", "loggers.csv.name=../../x")
    (tmp_path / "config.yaml").write_text(resolved_yaml(changed))
    with pytest.raises(
        UserError, match="names a class, loggers.csv._target_.*add trust=lightning, or choose the loggers"
    ):
        resumed(how="run")
    assert resumed("trust=lightning", how="run") == ["csv"]
    assert resumed() == ["tensorboard"]
    assert resumed("loggers=csv", "loggers.csv.name=../../x", how="run") == ["csv"]


def test_passwords_of_addresses_are_not_printed():
    assert without_password("sqlite:////a@b/c") == "sqlite:////a@b/c"
    assert without_password("at postgresql://me:p4ss@host/db: gone") == "at postgresql://host/db: gone"


SILENT = "http://127.0.0.1:9"


@pytest.mark.parametrize("kind", SERVICES)
def test_a_server_that_cannot_be_reached(kind, tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    monkeypatch.setenv("WANDB_BASE_URL", SILENT)
    to_store(SILENT, monkeypatch)
    started = time.monotonic()
    result = train(configuration(kind), tmp_path / "run")
    assert time.monotonic() - started < 90
    assert result.metrics["epochs_run"] == 3
    printed = capfd.readouterr()
    assert printed.out.count(f"warning: loggers.{kind}: ") == 1
    assert "raceback" not in printed.err + printed.out


@pytest.mark.slow
def test_the_script_says_where_a_run_of_wandb_is(script, tmp_path):
    if importlib.util.find_spec("wandb") is None:
        pytest.skip("needs wandb: pip install -e '.[wandb]'")
    settings = ["model=tiny", "tokenizer=bpe", "tokenizer.vocab_size=300", "trainer.max_epochs=1"]
    done = script("train.py", "loggers=[wandb,csv]", *settings, "hydra.run.dir=run")
    assert (done.returncode, done.stderr) == (0, "")
    assert len([line for line in done.stdout.splitlines() if line.startswith("wandb: ")]) == 1
    assert not (tmp_path / "wandb").exists()

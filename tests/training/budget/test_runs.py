"""Tiny runs with a budget of time: what is written, what is resumed, what is refused. Steps take what the tests say."""

import math
from dataclasses import replace

import pytest
import torch
from hydra import compose, initialize_config_dir

from qa_lm.config.budget.settings import seconds_of
from qa_lm.config.compose import read_config, register_schema
from qa_lm.config.resume import resumed_config
from qa_lm.data.prepare import prepare
from qa_lm.errors import UserError
from qa_lm.sweeps.identity import job_identity
from qa_lm.sweeps.processes.factory import JobFactory
from qa_lm.training import train as training
from qa_lm.training.budget import apply, rest
from qa_lm.training.budget import guard as guards
from qa_lm.training.budget.rest import After
from qa_lm.training.build import build_task
from qa_lm.training.checkpointing.comparison import first_difference
from qa_lm.training.distributed.agreement import settings_digest
from qa_lm.training.estimate import Estimate
from qa_lm.training.recipe import completed
from qa_lm.training.train import train
from qa_lm.training.trainer import build_trainer
from tests.conftest import ROOT, small_config, weights_in
from tests.faults.resume.interrupting import interrupted
from tests.training.test_recall import open_config


@pytest.fixture
def clock(monkeypatch):
    """20 s have passed, an epoch is expected to take 10 s, 5 s follow; only tests move the clock."""
    seconds = [20.0]

    def guard(config, started):
        return (
            []
            if config.budget.time is None
            else [guards.BudgetGuard(seconds_of(config.budget.time), lambda: seconds[0])]
        )

    monkeypatch.setattr(training, "budget_guard", guard)

    def estimated(module, data, precision, device, epochs, compiled, every, left):
        assert left in (90 - seconds[0], math.inf)
        return Estimate(epochs, 10.0, 1_000_000, "off")

    monkeypatch.setattr(training, "estimate_training", estimated)
    monkeypatch.setattr(apply, "seconds_after", lambda *given: After(4.0, 5.0))
    return seconds


def config_of(**changes):
    config = open_config(stop_at_recall=0.99, trainer__max_epochs=None, early_stopping__patience=None, **changes)
    return replace(config, budget=replace(config.budget, time="1m30s"))


def test_the_chosen_epochs_are_in_config_yaml_and_the_schedule_ends_there(tmp_path, clock):
    result = train(config_of(), tmp_path)
    config = read_config(tmp_path / "config.yaml")
    assert config.trainer["max_epochs"] == config.optimizer.schedule_epochs == 6
    assert config.budget.time == "1m30s"
    assert result.metrics["epochs_run"] == 6
    assert result.metrics["budget_seconds"] == 90
    assert result.metrics["planned_seconds"] == 20 + 6 * 10 + 5
    last = (tmp_path / "metrics.csv").read_text().splitlines()[-1].split(",")
    assert config.optimizer.lr
    assert float(last[-1]) < 0.1 * config.optimizer.lr


def test_it_is_the_run_with_those_epochs_bit_for_bit(tmp_path, clock):
    train(config_of(), tmp_path / "budget")
    given = replace(config_of(), budget=small_config().budget)
    given.trainer["max_epochs"], given.optimizer.schedule_epochs = 6, 6
    train(given, tmp_path / "given")
    states = [weights_in(tmp_path / name) for name in ("budget", "given")]
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    hyperparameters = [
        torch.load(tmp_path / name / "checkpoints" / "last.ckpt", weights_only=True)["hyper_parameters"]
        for name in ("budget", "given")
    ]
    assert hyperparameters[0] == hyperparameters[1]


def test_an_interrupted_run_ends_the_same(tmp_path, clock):
    """Even if the machine is then measured to be faster, or another budget is given."""
    whole = train(config_of(), tmp_path / "whole").folder
    folder = interrupted(config_of(), tmp_path / "run", "training_step", 9)
    assert read_config(folder / "config.yaml").trainer["max_epochs"] == 6
    clock[0] = 3.0
    now = replace(config_of(), resume="auto")
    now = replace(now, budget=replace(now.budget, time="1h"))
    resumed = resumed_config(folder, now, [])
    assert (resumed.trainer["max_epochs"], resumed.budget.time) == (6, "1h")
    train(resumed, folder)
    assert first_difference(whole, folder) is None


def test_a_run_that_is_killed_before_its_first_checkpoint_keeps_its_epochs(tmp_path, clock, capsys):
    train(config_of(), tmp_path / "whole")
    folder = interrupted(config_of(), tmp_path / "run", "training_step", 1)
    for file in (folder / "checkpoints").glob("*.ckpt"):
        file.unlink()
    clock[0] = 60.0
    train(resumed_config(folder, replace(config_of(), resume="auto"), []), folder)
    assert "the maximum of 6 epochs was given" in capsys.readouterr().out
    assert first_difference(tmp_path / "whole", folder) is None


def test_a_slow_run_stops_at_the_last_epoch_that_fits(tmp_path, clock, monkeypatch, capsys):
    """Epochs take 21 s instead of 10: the third ends at 83 s, and a fourth would end long after 90 s."""
    end = guards.BudgetGuard.on_train_epoch_end

    def slow(self, *given):
        clock[0] += 21.0
        end(self, *given)

    monkeypatch.setattr(guards.BudgetGuard, "on_train_epoch_end", slow)
    result = train(config_of(), tmp_path)
    assert result.metrics["epochs_run"] == 3
    assert result.metrics["stopped_early"]
    assert read_config(tmp_path / "config.yaml").optimizer.schedule_epochs == 6
    said = "Stopped: another epoch of 21s does not fit budget.time=1m30s, 1m23s of which are used."
    assert said in capsys.readouterr().out


def test_a_budget_without_room_for_an_epoch_writes_nothing(tmp_path, clock):
    clock[0] = 77.0
    with pytest.raises(UserError, match="too short for one epoch"):
        train(config_of(), tmp_path)
    assert [path.name for path in tmp_path.iterdir() if not path.name.startswith(".")] == []


def test_the_tutorial_which_packs_nothing_is_measured_too(tmp_path, clock, capsys):
    config = small_config()
    train(replace(config, budget=replace(config.budget, time="1m30s")), tmp_path)
    out = capsys.readouterr().out
    assert "budget: training takes at most 3 epochs; 36s are left over" in out
    assert read_config(tmp_path / "config.yaml").trainer["max_epochs"] == 3


def test_a_smaller_model_is_prepared_once_more(tmp_path, clock, monkeypatch):
    built = []

    def smaller(config, given, *others):
        if given.model.hidden_size is not None:
            return None
        built.append(config.model.hidden_size)
        return replace(given, model=replace(given.model, hidden_size=64, layers=1))

    monkeypatch.setattr(apply, "smaller_model", smaller)
    result = train(config_of(), tmp_path)
    config = read_config(tmp_path / "config.yaml")
    assert built == [192]
    assert (config.model.hidden_size, config.model.layers, config.model.heads) == (64, 1, 1)
    assert config.trainer["max_epochs"] == result.metrics["epochs_run"] == 6


def test_a_budget_is_no_part_of_what_a_run_is():
    register_schema()

    def identity(*overrides: str) -> str:
        with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
            return job_identity(compose("train", [*overrides]))

    assert identity("budget.time=10m", "budget.memory=2GB") == identity() != identity("seed=1")
    with_budget = config_of()
    assert settings_digest(with_budget) == settings_digest(replace(with_budget, budget=small_config().budget))


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("budget=10", "error: budget.time=10: add a unit: 10s, 10m, 10h or 10d (seconds, minutes, hours, days)"),
        ("budget.memory=2", "error: budget.memory=2: add a unit: 2GB, 2GiB, 2MB or 2MiB"),
    ],
)
def test_the_command_refuses_a_budget_without_a_unit(script, override, line):
    done = script("train.py", override)
    assert (done.returncode, done.stderr) == (2, f"{line}\n")


def test_the_command_refuses_a_budget_that_is_too_short(script):
    done = script(
        "train.py", "budget=1s", "model=tiny", "tokenizer=bpe", "trainer.max_epochs=null", "hydra.run.dir=out"
    )
    assert done.returncode == 2
    assert done.stderr.startswith("error: budget.time=1s: too short for one epoch")
    assert len(done.stderr.splitlines()) == 2
    assert not (script.folder / "out" / "config.yaml").exists()


def test_only_jobs_that_differ_in_their_budget_are_different_jobs(tmp_path, monkeypatch):
    def keys(swept: set[str]) -> set[str]:
        factory = JobFactory.__new__(JobFactory)
        factory.sweep, factory._swept = tmp_path, swept
        given = [["seed=1", f"budget.time={minutes}m"] for minutes in (5, 10)]
        return {factory.job(overrides, 0).record.key for overrides in given}

    monkeypatch.setattr(JobFactory, "_identity", lambda *given: "the same settings")
    assert len(keys({"budget.time"})) == 2
    assert len(keys({"seed"})) == 1


def test_what_follows_training_takes_longer_where_other_programs_run_or_answers_are_wrong(tmp_path, monkeypatch):
    config = open_config(stop_at_recall=0.99)
    prepared = prepare(config.data, config.tokenizer, config.model.context)
    config = completed(config, prepared.sizes())
    task = build_task(config, prepared, build_trainer(config, tmp_path, prepared).trainer)
    monkeypatch.setattr(rest, "validation_seconds", lambda *given: 1e-3 * 64)
    monkeypatch.setattr(rest.time, "process_time", lambda: 10.0)
    quiet, busy = (rest.seconds_after(config, prepared, task, torch.device("cpu"), 2.0, it) for it in (5.0, 20.0))
    assert busy.learnt - quiet.learnt == pytest.approx(rest.REPORT_SECONDS)
    tokens = int(prepared.examples.lengths(prepared.split.train).sum())
    assert quiet.not_learnt - quiet.learnt == pytest.approx(2.5e-3 * tokens)
    assert quiet.learnt > rest.REPORT_SECONDS + 2.0
    assert rest.slowness(1000.0) == rest.MOST_SLOWNESS

"""Batches are chosen so that a run fits a memory; a step keeps its rows where it can."""

from dataclasses import replace

import pytest

from qa_lm.config.compose import read_config
from qa_lm.config.resume import resumed_config
from qa_lm.data.prepare import prepare
from qa_lm.errors import UserError
from qa_lm.training.budget import memory
from qa_lm.training.budget.memory import Batches, expected_peaks, smaller_batches, warn_about_peak, within_memory
from qa_lm.training.checkpointing.comparison import first_difference
from qa_lm.training.custom import CustomParts
from qa_lm.training.recipe import completed
from qa_lm.training.train import train
from tests.conftest import small_config
from tests.faults.resume.interrupting import interrupted
from tests.training.test_recall import open_config

MB = 1_000_000


def config_of(budget, batch_size=None, row_tokens=None, **trainer):
    config = open_config(stop_at_recall=0.99, trainer__max_epochs=2)
    config.trainer |= trainer
    data = replace(config.data, batch_size=batch_size, row_tokens=row_tokens)
    return replace(config, data=data, budget=replace(config.budget, memory=budget))


def ready(config):
    prepared = prepare(config.data, config.tokenizer, config.model.context)
    return completed(config, prepared.sizes()), prepared


@pytest.fixture
def peaks(monkeypatch):
    """A run takes 100 MB, and 1 MB for each position of a batch; nothing stays free."""
    monkeypatch.setattr(memory, "MARGIN", 0.0)
    monkeypatch.setattr(
        memory, "expected_peaks", lambda *given: [100 * MB + MB * each.rows * each.row_tokens for each in given[4]]
    )


def test_some_memory_stays_free(peaks, monkeypatch):
    assert chosen("220MB") == (12, 1)
    monkeypatch.setattr(memory, "MARGIN", 0.05)
    assert chosen("220MB") == (6, 2)
    with pytest.raises(UserError, match="at least 116MB are needed"):
        chosen("115MB")


def chosen(budget, given_rows=None, **trainer):
    """The rows of a batch and the batches of a step, where the recipe wants steps of 12 rows of 10 tokens."""
    given = config_of(budget, given_rows, 10, **trainer)
    config, prepared = ready(config_of(budget, **trainer))
    config = replace(config, data=replace(config.data, batch_size=12, row_tokens=10))
    config, _ = within_memory(config, given, prepared, CustomParts(), None, verbose=True)
    return config.data.batch_size, config.trainer.get("accumulate_grad_batches", 1)


@pytest.mark.parametrize(
    ("budget", "batch"),
    [
        ("220MB", (12, 1)),
        ("219MB", (6, 2)),
        ("159MB", (4, 3)),
        ("139MB", (3, 4)),
        ("110MB", (1, 12)),
    ],
)
def test_a_step_keeps_its_rows(peaks, budget, batch):
    assert chosen(budget) == batch


def test_a_step_gets_smaller_if_the_number_of_its_batches_was_given(peaks):
    assert chosen("180MB", accumulate_grad_batches=2) == (8, 2)


def test_rows_that_cannot_be_divided_are_rounded_up():
    found = list(smaller_batches(Batches(13, 1, 64), steps_open=True))
    assert found[0] == Batches(7, 2, 64)
    assert found[-1] == Batches(1, 13, 64)


def test_a_batch_that_was_given_stays(peaks):
    assert chosen("300MB", given_rows=12) == (12, 1)
    with pytest.raises(UserError, match=r"budget.memory=200MB: at least 220MB are needed, with 12 rows of 10 tokens"):
        chosen("200MB", given_rows=12)


def test_what_cannot_fit_is_refused_with_the_least_that_would(peaks):
    with pytest.raises(UserError) as error:
        chosen("105MB")
    assert str(error.value) == (
        "budget.memory=105MB: at least 110MB are needed, with 1 row of 10 tokens a batch; use "
        "model.gradient_checkpointing=true, a smaller model or more memory"
    )


def test_rows_get_shorter_where_single_ones_do_not_fit(peaks):
    """The longest pair of the tutorial has fewer tokens than a row of 1,000."""
    given = config_of("300MB")
    config, prepared = ready(given)
    config = replace(config, data=replace(config.data, batch_size=1, row_tokens=1000))
    config, prepared = within_memory(config, given, prepared, CustomParts(), None, verbose=True)
    assert config.data.row_tokens == prepared.row_tokens == prepared.sizes().longest < 200
    assert config.data.batch_size * config.trainer["accumulate_grad_batches"] * config.data.row_tokens == pytest.approx(
        1000, rel=0.1
    )


def test_expected_peaks_fall_with_the_rows_and_hold_what_stays():
    config, prepared = ready(config_of("1GB"))
    found = [Batches(64, 1, 64), Batches(32, 2, 64), Batches(1, 64, 64)]
    three = expected_peaks(config, prepared, CustomParts(), None, found)
    assert three[0] > three[1] > three[2] > 50 * MB
    assert three[0] - three[1] == pytest.approx(32 / 31 * (three[1] - three[2]), rel=0.3)


def test_a_run_with_a_memory_has_its_batches_in_config_yaml(tmp_path, peaks, capsys):
    """A row of 64 tokens would need 164 MB."""
    given = replace(config_of("150MB"), seed=1)
    train(given, tmp_path / "whole")
    config = read_config(tmp_path / "whole" / "config.yaml")
    assert config.budget.memory == "150MB"
    assert (config.data.batch_size, config.trainer["accumulate_grad_batches"], config.data.row_tokens) == (1, 2, 31)
    assert (
        "budget: chosen data.batch_size=1, trainer.accumulate_grad_batches=2, data.row_tokens=31"
        in capsys.readouterr().out
    )
    folder = interrupted(given, tmp_path / "run", "training_step", 3)
    train(resumed_config(folder, replace(config_of("120MB"), seed=1, resume="auto"), []), folder)
    assert first_difference(tmp_path / "whole", folder) is None


def test_measured_steps_that_need_more_are_named(capsys):
    warn_about_peak(replace(small_config(), budget=config_of("1GB").budget), 2_000 * MB)
    assert "a peak of 2.00 GB, above budget.memory=1GB" in capsys.readouterr().out
    warn_about_peak(replace(small_config(), budget=config_of("3GB").budget), 2_000 * MB)
    warn_about_peak(small_config(), 2_000 * MB)
    assert capsys.readouterr().out == ""

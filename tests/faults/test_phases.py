"""Signals before and after training, and folders that are read while a run is under way."""

import signal

import pytest

import qa_lm.training.train as training
from qa_lm.reporting.loss_curve import draw_loss_curve
from qa_lm.reporting.run_report import write_report
from qa_lm.training.comparison import first_difference
from qa_lm.training.interruption import Interrupted
from qa_lm.training.train import train
from tests.conftest import small_config
from tests.faults.interrupting import interrupted


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_while_data_is_prepared_nothing_is_left(tmp_path, monkeypatch, number):
    monkeypatch.setattr(training, "prepare", lambda *arguments: signal.raise_signal(number))
    with pytest.raises((Interrupted, KeyboardInterrupt)):
        train(small_config(), tmp_path / "run")
    assert list((tmp_path / "run").iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("phase", ["write_ledger", "export_model", "assess", "log_end"])
def test_after_training_it_goes_on_to_the_same_end(tmp_path, monkeypatch, small_three, phase, number):
    with monkeypatch.context() as patch:
        patch.setattr(training, phase, lambda *arguments: signal.raise_signal(number))
        with pytest.raises((Interrupted, KeyboardInterrupt)):
            train(small_config(), tmp_path / "run")
    assert not (tmp_path / "run" / "metrics.json").exists()
    train(small_config(resume="auto"), tmp_path / "run")
    assert first_difference(small_three, tmp_path / "run") is None


@pytest.fixture(scope="module")
def small_three(tmp_path_factory):
    """A run of three epochs that was left alone."""
    return train(small_config(), tmp_path_factory.mktemp("three")).folder


def test_readers_of_a_run_that_is_under_way(tmp_path, script):
    """Interrupted in its second epoch, which leaves what a run leaves that trains on."""
    folder = interrupted(small_config(), tmp_path / "run", "training_step", 13)
    page = write_report(folder)
    assert "tutorial" in page.read_text()
    draw_loss_curve(folder)
    asked = script("ask.py", str(folder), "How are you?")
    assert asked.returncode == 2
    assert (
        asked.stderr
        == f"error: {folder}: this run is not finished; model/ comes at its end (to go on: resume={folder})\n"
    )
    evaluated = script("evaluate.py", str(folder))
    assert evaluated.returncode == 2
    assert evaluated.stderr == asked.stderr
    before = (folder / "metrics.csv").read_text()
    assert len(before.splitlines()) == 2

"""Signals before and after training."""

import signal

import pytest

import qa_lm.training.results as results
import qa_lm.training.train as training
from qa_lm.training.checkpointing.comparison import first_difference
from qa_lm.training.checkpointing.interruption import Interrupted
from qa_lm.training.train import train
from tests.conftest import small_config


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_while_data_is_prepared_nothing_is_left(tmp_path, monkeypatch, number):
    monkeypatch.setattr(training, "prepare", lambda *arguments: signal.raise_signal(number))
    before = [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)]
    with pytest.raises((Interrupted, KeyboardInterrupt)):
        train(small_config(), tmp_path / "run", handle_signals=True)
    assert list((tmp_path / "run").iterdir()) == []
    # A notebook keeps running, and a later Ctrl-C must not end it.
    assert [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)] == before


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("phase", ["write_ledger", "export_model", "assess", "log_end"])
def test_after_training_a_resumed_run_ends_the_same(tmp_path, monkeypatch, small_three, phase, number):
    with monkeypatch.context() as patch:
        patch.setattr(results, phase, lambda *arguments: signal.raise_signal(number))
        with pytest.raises((Interrupted, KeyboardInterrupt)):
            train(small_config(), tmp_path / "run", handle_signals=True)
    assert not (tmp_path / "run" / "metrics.json").exists()
    train(small_config(resume="auto"), tmp_path / "run")
    assert first_difference(small_three, tmp_path / "run") is None


@pytest.fixture(scope="module")
def small_three(tmp_path_factory):
    """An uninterrupted run of three epochs."""
    return train(small_config(), tmp_path_factory.mktemp("three")).folder

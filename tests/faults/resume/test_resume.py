"""A run that is interrupted and resumed ends like an uninterrupted one, bit for bit."""

import pytest

import qa_lm.training.results as results
from qa_lm.config.enums import OptimizerKind, ScheduleKind
from qa_lm.training.checkpointing.comparison import first_difference
from qa_lm.training.train import train
from tests.conftest import small_config
from tests.faults.resume.interrupting import interrupted

PADDED: dict[str, object] = {"data__shuffle": True, "model__dropout": 0.2}
PACKED = {**PADDED, "data__packing": True, "data__row_tokens": 128, "optimizer__kind": OptimizerKind.muon}
KINDS: dict[str, dict[str, object]] = {
    "one pair a step": PADDED | {"optimizer__schedule": ScheduleKind.cosine, "early_stopping__patience": 1},
    "packed, Muon": PACKED | {"trainer__gradient_clip_val": 1.0},
    "rewritten questions": PACKED | {"data__augment": 0.5},
    "rewritten questions, two workers": PADDED | {"data__augment": 0.5, "data__workers": 2, "data__batch_size": 3},
    "two workers": PADDED | {"data__workers": 2, "data__batch_size": 3},
    "accumulation": PADDED | {"trainer__accumulate_grad_batches": 3},
    "two validations an epoch": PADDED | {"trainer__val_check_interval": 0.5},
    "a validation every second epoch": PADDED | {"trainer__check_val_every_n_epoch": 2},
}

LONGEST = {"packed, Muon": 5, "rewritten questions": 5, "rewritten questions, two workers": 8, "two workers": 8}
"""Last interrupted step of the kinds that have fewer than 11 steps."""

MORE = (("training_step", 1), ("training_step", 8), ("validation_step", 1))


@pytest.fixture(scope="module")
def whole_runs(tmp_path_factory):
    """Uninterrupted runs, by kind."""
    return {
        kind: train(small_config(**changes), tmp_path_factory.mktemp("whole")).folder for kind, changes in KINDS.items()
    }


@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=[pytest.mark.slow] if "two workers" in kind else []) for kind in KINDS]
)
@pytest.mark.parametrize(
    ("method", "call"),
    [
        *(("training_step", 3), ("training_step", 11), ("epoch_train_loss", 1)),
        *(pytest.param(*each, marks=pytest.mark.slow) for each in MORE),
    ],
)
def test_it_ends_the_same(kind, method, call, whole_runs, tmp_path):
    """8 steps an epoch where a step takes one pair: 8 is an epoch's end, 11 is in the second. The loss of an epoch is
    taken after its validation."""
    call = min(call, LONGEST.get(kind, call))
    config = small_config(**KINDS[kind])
    folder = interrupted(config, tmp_path / "run", method, call)
    config.resume = "auto"
    train(config, folder)
    assert first_difference(whole_runs[kind], folder) is None


def test_interrupted_before_the_last_validation_and_again_after_it(whole_runs, tmp_path, monkeypatch):
    """The second resumed run must not repeat the validation that the first one repeated."""
    config = small_config(**KINDS["two validations an epoch"])
    folder = interrupted(config, tmp_path / "run", "training_step", 24)
    config.resume = "auto"
    with monkeypatch.context() as patch:
        patch.setattr(results, "write_ledger", lambda *arguments: 1 // 0)
        with pytest.raises(ZeroDivisionError):
            train(config, folder)
    train(config, folder)
    assert first_difference(whole_runs["two validations an epoch"], folder) is None


def test_interrupted_after_training_stopped_early(tmp_path, monkeypatch, capsys):
    """No validation runs after resuming, and the last lines are the same."""
    config = small_config(optimizer__lr=0.05, early_stopping__patience=2, trainer__max_epochs=20)
    whole = train(config, tmp_path / "whole").folder
    said = [line for line in capsys.readouterr().out.splitlines() if line.startswith("Stopped early")]
    config.resume = "auto"
    with monkeypatch.context() as patch:
        patch.setattr(results, "write_ledger", lambda *arguments: 1 // 0)
        with pytest.raises(ZeroDivisionError):
            train(config, tmp_path / "run")
    capsys.readouterr()
    train(config, tmp_path / "run")
    assert [line for line in capsys.readouterr().out.splitlines() if line.startswith("Stopped early")] == said
    assert len(said) == 1
    assert first_difference(whole, tmp_path / "run") is None

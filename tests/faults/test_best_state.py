"""Checkpoints by time: the best state is kept in memory, and the disk always holds what resuming needs."""

from pathlib import Path

import pytest
import torch

from qa_lm.run.checkpoint import read_checkpoint
from qa_lm.run.run_folder import BEST, LAST
from qa_lm.training.checkpointing import best_state
from qa_lm.training.checkpointing.best_state import BestState
from qa_lm.training.checkpointing.comparison import _difference, first_difference
from qa_lm.training.checkpointing.last_checkpoint import LastCheckpoint
from qa_lm.training.train import train
from tests.conftest import small_config
from tests.faults.resume.interrupting import broken_off

CPU = torch.device("cpu")


def test_a_copy_is_independent_and_shares_memory_where_the_state_does():
    weight, moment = torch.arange(20.0).view(4, 5), torch.ones(3)
    rows = [1, 2]
    best = BestState()
    best.set({"global_step": 3, "tied": {"a": weight, "b": weight[1:].t()}, "optimizer": [moment], "rows": rows})
    best.copy(CPU)
    weight.zero_()
    moment.zero_()
    rows.append(3)
    assert best.state is not None
    tied = best.state["tied"]
    assert torch.equal(tied["a"], torch.arange(20.0).view(4, 5))
    assert torch.equal(tied["b"], tied["a"][1:].t())
    assert tied["a"].untyped_storage().data_ptr() == tied["b"].untyped_storage().data_ptr()
    assert torch.equal(best.state["optimizer"][0], torch.ones(3))
    assert (best.state["rows"], best.step) == ([1, 2], 3)
    best.set({"global_step": 4, "tied": {"a": weight}, "new": torch.ones(7), "optimizer": [moment]})
    best.copy(CPU)
    assert best.state["tied"]["a"].data_ptr() == tied["a"].data_ptr()  # memory is used again
    assert torch.equal(best.state["tied"]["a"], torch.zeros(4, 5))


def test_a_copy_needs_twice_its_size(monkeypatch):
    free = {"cuda": 0, "cpu": 0}
    monkeypatch.setattr(best_state, "free_memory", lambda device: free[device.type])
    best = BestState()
    best.set({"global_step": 1, "weight": torch.ones(100), "same": torch.ones(0)})
    for free["cpu"], place in ((799, None), (800, CPU)):
        assert best.device_with_room() == place
    for free["cuda"], place in ((799, CPU), (800, torch.device("cuda"))):
        assert best_state.room_for(400, torch.device("cuda")) == place


def test_a_short_run_writes_only_at_its_end(tmp_path, monkeypatch):
    """It writes one file with two names, because the last epoch is the best."""
    saves, save = [], torch.save

    def counted(state, file):
        saves.append(state["global_step"])
        save(state, file)

    monkeypatch.setattr(torch, "save", counted)
    config = small_config(optimizer__lr=1e-3, checkpoint__every_seconds=3600.0)
    folder = train(config, tmp_path / "run").folder
    assert saves == [24]
    assert (folder / "checkpoints" / BEST).samefile(folder / "checkpoints" / LAST)


@pytest.mark.parametrize(
    "limits",
    [
        {"trainer__max_steps": 11},
        {"trainer__max_time": {"milliseconds": 1}},
        {"trainer__check_val_every_n_epoch": 2},
        {"trainer__limit_val_batches": 0},
        {"optimizer__lr": 0.05, "early_stopping__patience": 1, "trainer__max_epochs": 40},
    ],
    ids=["steps", "time", "no validation at the end", "no validation", "early stopping"],
)
def test_the_end_is_saved_whatever_ends_training(tmp_path, limits):
    result = train(small_config(**limits), tmp_path / "run")
    last = read_checkpoint(tmp_path / "run" / "checkpoints" / LAST)
    assert last["global_step"] == result.metrics["steps"] > 0


def best_score(path: Path) -> float:
    """The best score so far, as the checkpoint stores it."""
    states = read_checkpoint(path)["callbacks"]
    return float(
        next(state["best_model_score"] for name, state in states.items() if name.startswith("ModelCheckpoint"))
    )


@pytest.mark.parametrize("every_seconds", [None, 3600.0])
@pytest.mark.parametrize("step", [14, 18, 20])
def test_best_checkpoint_is_the_best_state_that_last_checkpoint_knows(tmp_path, monkeypatch, step, every_seconds):
    """Saved within epochs, or with a new best state: after an error, a resumed run gives the same result."""
    monkeypatch.setattr(LastCheckpoint, "EARLY_SAVE_SHARE", 0.0)
    config = small_config(data__shuffle=True, model__dropout=0.2, optimizer__lr=1e-3)
    config.checkpoint.every_steps, config.checkpoint.every_seconds = (
        (3, None) if every_seconds is None else (None, 3600)
    )
    broken_off(config, tmp_path / "run", step)
    checkpoints = tmp_path / "run" / "checkpoints"
    assert best_score(checkpoints / BEST) == best_score(checkpoints / LAST)
    best = read_checkpoint(checkpoints / BEST)
    config.trainer["max_epochs"] = best["global_step"] // 8
    then = read_checkpoint(train(config, tmp_path / "then").folder / "checkpoints" / LAST)
    for key in ("global_step", "state_dict", "optimizer_states"):
        assert _difference(best[key], then[key], key) is None
    config.trainer["max_epochs"] = 3
    config.resume = "auto"
    train(config, tmp_path / "run")
    config.resume = None
    assert first_difference(train(config, tmp_path / "whole").folder, tmp_path / "run") is None


def test_if_memory_is_short_a_new_best_state_is_written_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr(best_state, "room_for", lambda size, device: None)
    config = small_config(optimizer__lr=1e-3)
    broken_off(config, tmp_path / "run", 12)
    checkpoints = tmp_path / "run" / "checkpoints"
    assert read_checkpoint(checkpoints / BEST)["global_step"] == 8
    assert (checkpoints / BEST).samefile(checkpoints / LAST)

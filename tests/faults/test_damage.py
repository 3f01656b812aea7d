"""Damaged checkpoints are found, and the former one is used; without an intact checkpoint resuming is refused."""

import os
import random
import shutil
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest
import torch

import qa_lm.training.train as training
from qa_lm.errors import UserError
from qa_lm.run.manifest import is_intact, read_manifest
from qa_lm.run.run_folder import BEST, LAST, PREVIOUS, remove_leftovers
from qa_lm.training.checkpointing.checkpoints import DirectCheckpointIO, newest_valid_checkpoint
from qa_lm.training.checkpointing.comparison import first_difference
from qa_lm.training.checkpointing.resume import read_run_state
from qa_lm.training.train import train
from qa_lm.training.trainer import restore_best
from tests.conftest import small_config
from tests.faults.resume.interrupting import interrupted

FLIPS = 200


@pytest.fixture(scope="module")
def unfinished(tmp_path_factory):
    """A run that was interrupted in the second of its three epochs."""
    folder = tmp_path_factory.mktemp("unfinished") / "run"
    config = small_config(model__dropout=0.2, data__shuffle=True)
    config.checkpoint.every_steps = 2
    return interrupted(config, folder, "training_step", 13)


@pytest.fixture
def run(unfinished, tmp_path):
    """A copy of the unfinished run."""
    return Path(shutil.copytree(unfinished, tmp_path / "run"))


def resume(folder: Path) -> None:
    config = small_config(model__dropout=0.2, data__shuffle=True)
    config.checkpoint.every_steps = 2
    config.resume = "auto"
    train(config, folder)


def flip(path: Path, at: int) -> None:
    """Change one bit of one byte."""
    with path.open("r+b") as file:
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ 0x10]))


def test_any_flipped_byte_is_found(run):
    last, draw = run / "checkpoints" / "last.ckpt", random.Random(0)
    size = last.stat().st_size
    places = [0, size - 1, *(draw.randrange(size) for _ in range(FLIPS - 2))]
    found = 0
    for place in places:
        flip(last, place)
        found += is_intact(last) is False
        flip(last, place)
    assert found == FLIPS
    assert is_intact(last)


def test_the_former_checkpoint_is_used_and_ends_the_same(run, tmp_path, capsys):
    last = run / "checkpoints" / "last.ckpt"
    flip(last, last.stat().st_size // 2)
    resume(run)
    said = capsys.readouterr().out
    assert f"warning: {last} is DAMAGED; renamed to last.ckpt.damaged, and previous.ckpt is used instead\n" in said
    assert f"{run}: resuming after step 12\n" in said
    whole = tmp_path / "whole"
    train(small_config(model__dropout=0.2, data__shuffle=True), whole)
    assert first_difference(whole, run) is None


def test_a_truncated_file_is_found(run):
    last = run / "checkpoints" / "last.ckpt"
    last.write_bytes(last.read_bytes()[:-100])
    assert newest_valid_checkpoint(run).path == run / "checkpoints" / "previous.ckpt"


def test_both_damaged_is_an_error(run):
    for name in ("last.ckpt", "previous.ckpt"):
        flip(run / "checkpoints" / name, 1000)
    with pytest.raises(UserError, match=r"last\.ckpt and .*previous\.ckpt: damaged"):
        resume(run)
    assert not (run / "checkpoints" / "last.ckpt.damaged").exists()


def test_without_a_manifest_a_checkpoint_is_used_with_a_warning(run, capsys):
    (run / "checkpoints" / "manifest.json").write_text("{")
    assert read_manifest(run / "checkpoints") is None
    assert read_run_state(run, small_config(resume="auto"), verbose=True).step == 13
    assert "no readable manifest.json: last.ckpt is used without a check" in capsys.readouterr().out


def test_a_damaged_best_checkpoint_is_not_exported(run, capsys):
    best = run / "checkpoints" / "best.ckpt"
    loop: Any = SimpleNamespace(
        best=SimpleNamespace(best_model_path=str(best), best_model_score=1.0),
        files=DirectCheckpointIO(),
        trainer=SimpleNamespace(global_step=-1),
    )
    module = Mock()
    restore_best(module, loop)
    module.load_state_dict.assert_called_once()
    flip(best, 2000)
    restore_best(module, loop)
    module.load_state_dict.assert_called_once()
    assert capsys.readouterr().out == f"warning: {best} is DAMAGED; model/ holds the last weights instead\n"


def test_only_leftovers_of_killed_writes_are_deleted(run):
    left = [
        ".config.yaml.x1y2z3_4",
        "..holder.json.x1y2z3_4",
        "checkpoints/.last.ckpt.4711",
        "checkpoints/.previous.ckpt.4711",
    ]
    folders = [".model.abcdefgh", "checkpoints/.model.abcdefgh.before"]
    for name in [*left, "notes.txt", ".gitignore", ".eslintrc.json", ".notes.csv.20261127", ".my.config.yaml"]:
        (run / name).write_text("half")
    for name in folders:
        (run / name).mkdir()
    before = {path.name for path in run.rglob("*")}
    remove_leftovers(run)
    assert before - {path.name for path in run.rglob("*")} == {Path(name).name for name in [*left, *folders]}


def test_leftovers_of_a_start_that_was_killed_are_deleted(tmp_path, monkeypatch):
    """config.yaml, which marks a run folder, is the last file that is written before training."""
    with monkeypatch.context() as patch:
        patch.setattr(training, "_write_first_files", partial(_killed_halfway, tmp_path / "run"))
        with pytest.raises(SystemExit):
            train(small_config(), tmp_path / "run")
    train(small_config(), tmp_path / "run")
    hidden = [path.name for path in (tmp_path / "run").rglob(".*") if path.name != ".lock"]
    assert hidden == []


def saved_step(path: Path) -> int:
    return int(torch.load(path, weights_only=True)["global_step"]) if path.exists() else -1


def _killed_halfway(run: Path, *arguments: object) -> None:
    (run / "checkpoints" / ".model.abcdefgh").mkdir(parents=True)
    (run / ".split.csv.4711").touch()
    raise SystemExit(137)


def test_a_write_after_a_kill_between_two_renames_leaves_no_temporary_file(tmp_path):
    """After such a kill, `last.ckpt` and `previous.ckpt` are one file."""
    last, previous = tmp_path / LAST, tmp_path / PREVIOUS
    DirectCheckpointIO().save_checkpoint({"epoch": 0, "global_step": 1}, last)
    os.link(last, previous)
    DirectCheckpointIO().save_checkpoint({"epoch": 0, "global_step": 2}, last)
    assert {path.name for path in tmp_path.glob(".*")} == set()
    assert [torch.load(path)["global_step"] for path in (previous, last)] == [1, 2]


def test_after_a_kill_at_any_moment_every_complete_file_is_in_the_manifest(tmp_path, monkeypatch):
    """The folder is copied before each step that changes it, as a power failure would leave it."""
    folder, copies = tmp_path / "checkpoints", list[Path]()
    files = DirectCheckpointIO()
    replace = os.replace

    def watched(source, target):
        if Path(target).parent == folder:
            copies.append(Path(shutil.copytree(folder, tmp_path / f"copy{len(copies)}")))
        replace(source, target)

    monkeypatch.setattr(os, "replace", watched)
    for step in range(6):
        state = {"epoch": 0, "global_step": step, "state_dict": {"weight": torch.full((10,), float(step))}}
        if step % 2:
            files.save_checkpoint(state, folder / "best.ckpt")
        if step in (1, 2, 4, 5):  # the best is also the last twice, and stays in memory once
            files.save_checkpoint(state, folder / "last.ckpt")
        files.keep_best(folder)
    assert len(copies) > 15
    checked = 0
    for copy in copies:
        for path in copy.glob("*.ckpt"):
            assert is_intact(path), path
            checked += 1
        best, last = (saved_step(copy / name) for name in (BEST, LAST))
        # No best state is missing that the resumed run relies on.
        assert best >= max((step for step in (1, 3, 5) if step <= last), default=-1)
    assert checked > 20

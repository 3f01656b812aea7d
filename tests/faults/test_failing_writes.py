"""A full disk, a missing folder: one line, exit code 1, and the last good checkpoint unchanged."""

import errno
import os
import re
import resource
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from lightning.pytorch.loggers import TensorBoardLogger

from qa_lm.config.enums import FailedWriteChoice, Weights
from qa_lm.config.schema import TrainConfig
from qa_lm.errors import FailedWrite
from qa_lm.inference.answerer import Answerer
from qa_lm.inference.export import export_model
from qa_lm.modeling.module import CausalLMModule
from qa_lm.run.manifest import is_intact
from qa_lm.training.checkpointing import best_state
from qa_lm.training.checkpointing.checkpoints import DirectCheckpointIO
from qa_lm.training.checkpointing.comparison import first_difference
from qa_lm.training.checkpointing.last_checkpoint import LastCheckpoint
from qa_lm.training.train import train
from tests.conftest import small_config

SMALL = [
    *("tokenizer=bpe", "tokenizer.vocab_size=300", "model=tiny", "model.hidden_size=64", "trainer.accelerator=cpu"),
    *("early_stopping.patience=null", "optimizer.lr=1e-3", "hydra.run.dir=run"),
]


@pytest.fixture
def each_improvement(monkeypatch):
    """Each epoch that improves is written immediately."""
    monkeypatch.setattr(LastCheckpoint, "EARLY_SAVE_SHARE", 0.0)


def state(step):
    return {"epoch": 0, "global_step": step, "state_dict": {"weight": torch.full((1000,), float(step))}}


def test_a_failing_write_keeps_the_former_checkpoint(tmp_path, monkeypatch):
    files, path = DirectCheckpointIO(), tmp_path / "checkpoints" / "last.ckpt"
    files.save_checkpoint(state(1), path)
    before = path.read_bytes()

    def full(number):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(FailedWrite, match=r"last.ckpt: cannot be written: No space left on device$"):
            files.save_checkpoint(state(2), path)
    assert path.read_bytes() == before
    assert sorted(each.name for each in path.parent.iterdir()) == ["last.ckpt", "manifest.json"]
    assert is_intact(path)
    files.save_checkpoint(state(3), path)
    assert torch.load(path, weights_only=True)["global_step"] == 3


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(FailedWrite, match=r"last.ckpt: cannot be written: Not a directory$"):
        DirectCheckpointIO().save_checkpoint(state(1), tmp_path / "file" / "checkpoints" / "last.ckpt")


def test_a_run_on_a_full_disk_ends_with_a_line_and_exit_code_1(script, tmp_path):
    """A limit on the size of files stands for the disk: torch reaches it in the middle of a checkpoint."""
    done = script("train.py", *SMALL, limits={"RLIMIT_FSIZE": 500 * 1024})
    assert done.returncode == 1, done.stderr
    # The one that failed first, or the attempt to save the last state after it.
    wanted = rf"error: {tmp_path}/run/checkpoints/(best|last)\.ckpt: cannot be written: File too large\n"
    assert re.fullmatch(wanted, done.stderr), done.stderr
    assert [each.name for each in (tmp_path / "run" / "checkpoints").iterdir()] == ["model"]


def test_a_vocabulary_that_cannot_be_written_is_a_line(script, tmp_path):
    """GPT-2's takes 3.5 MB; the library that writes it raises plain exceptions."""
    settings = ["model=tiny", "model.hidden_size=64", "trainer.accelerator=cpu", "hydra.run.dir=run"]
    done = script("train.py", *settings, limits={"RLIMIT_FSIZE": 1000 * 1024})
    assert (done.returncode, done.stderr) == (1, f"error: {tmp_path}/run/checkpoints/model: File too large\n")


def test_weights_that_cannot_be_written_are_a_system_error(tmp_path, small_run):
    answerer = Answerer.load(small_run.folder)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, before[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            export_model(answerer.model, answerer.tokenizer, answerer.template, [], tmp_path / "model")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert list(tmp_path.iterdir()) == []


def test_training_continues_with_go_on(tmp_path, monkeypatch, capsys, each_improvement):
    """The disk is full for the second of three epochs."""
    save, saves = torch.save, 0

    def full(*arguments):
        nonlocal saves
        saves += 1
        if saves == 2:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        save(*arguments)

    monkeypatch.setattr(torch, "save", full)
    config = small_config(optimizer__lr=1e-3)  # each epoch is better than the one before
    config.checkpoint.failed_write = FailedWriteChoice.go_on
    result = train(config, tmp_path / "run")
    said = capsys.readouterr().out
    assert said.count("cannot be written: No space left on device; training continues") == 1
    assert result.metrics["epochs_run"] == 3
    assert is_intact(tmp_path / "run" / "checkpoints" / "best.ckpt")
    assert saved_step(tmp_path / "run" / "checkpoints" / "best.ckpt") == 24


@pytest.mark.parametrize("memory", ["enough", "short"])
def test_best_weights_that_could_not_be_written_are_exported_from_memory(tmp_path, monkeypatch, capsys, memory):
    """No disk for any checkpoint; if memory is short too, the best weights are lost, and a warning says so."""

    def full(*arguments):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    config = small_config(trainer__max_epochs=12, early_stopping__patience=None, optimizer__lr=0.02)
    wanted = [
        train(replace(config, export_weights=which), tmp_path / which.value).folder / "model" / "model.safetensors"
        for which in (Weights.best, Weights.last)
    ]
    monkeypatch.setattr(torch, "save", full)
    if memory == "short":
        monkeypatch.setattr(best_state, "room_for", lambda size, device: None)
    config.checkpoint.failed_write = FailedWriteChoice.go_on
    capsys.readouterr()
    folder = train(config, tmp_path / "run").folder
    found, (best, last) = (folder / "model" / "model.safetensors").read_bytes(), [each.read_bytes() for each in wanted]
    assert best != last
    assert found == (best if memory == "enough" else last)
    lost = f"warning: {folder}/checkpoints/best.ckpt could not be written; model/ holds the last weights instead"
    assert (lost in capsys.readouterr().out) == (memory == "short")
    assert not list(folder.glob("checkpoints/*.ckpt"))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount a file system")
def test_a_run_on_a_small_file_system_that_fills_up(tmp_path, each_improvement):
    """A real file system of 9 MB. With more space, the resumed run ends like an uninterrupted one."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=9m", "tmpfs", str(disk)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("this system does not let root mount a file system")
    try:
        folder = disk / "run"
        config = small_config(trainer__max_epochs=6, resume="auto", loggers={}, optimizer__lr=1e-3)
        filler = disk / "filler"
        with pytest.raises(FailedWrite, match=r"cannot be written: No space left on device$"):
            _train_until_full(config, folder, filler)
        assert is_intact(folder / "checkpoints" / "last.ckpt")
        filler.unlink()
        subprocess.run(["mount", "-o", "remount,size=50m", str(disk)], check=True)
        train(config, folder)
        whole = train(small_config(trainer__max_epochs=6, loggers={}, optimizer__lr=1e-3), tmp_path / "whole")
        assert first_difference(whole.folder, folder) is None
    finally:
        subprocess.run(["umount", "--lazy", str(disk)], check=False)


def _train_until_full(config: TrainConfig, folder: Path, filler: Path) -> None:
    original = CausalLMModule.on_train_epoch_start

    def fills(self):
        original(self)
        if self.trainer.current_epoch == 2:
            free = os.statvfs(filler.parent)
            filler.write_bytes(b"0" * (free.f_bavail * free.f_frsize))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(CausalLMModule, "on_train_epoch_start", fills)
        train(config, folder)


def test_a_full_file_system_does_not_end_a_run_with_go_on(tmp_path, monkeypatch, capsys, each_improvement):
    """Every write of the second epoch fails: checkpoints, metrics.csv and TensorBoard's events."""
    epoch = 0
    original, fsync, record = CausalLMModule.on_train_epoch_start, os.fsync, TensorBoardLogger.log_metrics

    def starts(self):
        nonlocal epoch
        original(self)
        epoch = self.trainer.current_epoch

    def full(number):
        if epoch == 1:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fsync(number)

    def no_events(self, *arguments):
        if epoch == 1:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        record(self, *arguments)

    monkeypatch.setattr(CausalLMModule, "on_train_epoch_start", starts)
    monkeypatch.setattr(os, "fsync", full)
    monkeypatch.setattr(TensorBoardLogger, "log_metrics", no_events)
    config = small_config(optimizer__lr=1e-3, trainer__log_every_n_steps=1)
    config.checkpoint.failed_write = FailedWriteChoice.go_on
    result = train(config, tmp_path / "run")
    said = capsys.readouterr().out
    assert said.count("metrics.csv: cannot be written: No space left on device; training continues") == 1
    assert said.count("ckpt: cannot be written: No space left on device; training continues") == 1
    assert said.count("warning: no more TensorBoard events: No space left on device; training continues") == 1
    assert result.metrics["epochs_run"] == 3
    assert len((tmp_path / "run" / "metrics.csv").read_text().splitlines()) == 4


def test_a_vanished_folder(tmp_path, each_improvement):
    """Removed during training: the next checkpoint creates it again, or one line says why it cannot."""
    folder = tmp_path / "run"
    original = CausalLMModule.on_train_epoch_start

    def removes(self):
        original(self)
        if self.trainer.current_epoch == 1:
            shutil.rmtree(folder)
            folder.write_text("in the way")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(CausalLMModule, "on_train_epoch_start", removes)
        with pytest.raises(FailedWrite, match=r"best\.ckpt: cannot be written: Not a directory$"):
            train(small_config(loggers={}), folder)


def saved_step(path: Path) -> int:
    return int(torch.load(path, weights_only=True)["global_step"])

"""The checkpoints of a run: `best.ckpt`, `last.ckpt`, and `previous.ckpt`, which was the last one before.

- The best state stays in memory until `last.ckpt` is saved, and is written right before it. So on the disk `best.ckpt`
  is the best that `last.ckpt` knows of, and a run that validates often does not write often.
- A file is written beside its target and summed meanwhile, synced to the disk and renamed, straight from memory:
  Lightning's own way goes through a copy in memory and a second file, and a power cut could leave half of it.
- When the best state is also the last, both names share one file: for GPT-2 small that saves 1.5 GB and its writing.
- Loading takes tensors and plain values only, never code (`qa_lm.run.checkpoint`).
"""

import contextlib
import os
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.fabric.utilities.types import _PATH
from lightning.pytorch.callbacks import ModelCheckpoint
from torch.serialization import get_crc32_options, set_crc32_options

from qa_lm.errors import FailedWrite, UserError, first_line
from qa_lm.run import run_folder
from qa_lm.run.atomic import sync
from qa_lm.run.checkpoint import STATE, read_checkpoint
from qa_lm.run.manifest import HashingFile, is_intact, record_sha256, write_with_sha256
from qa_lm.run.run_folder import BEST, LAST, PREVIOUS, PROBE_FILE
from qa_lm.training.checkpointing.kept_state import KeptState

PROBE = 1 << 20
"""Bytes that are written to learn why a checkpoint could not be."""
Identity = tuple[int, int, str]


def best_checkpoint(folder: Path, monitor: str, mode: str) -> ModelCheckpoint:
    """Hands the state with the best `monitor` on as `best.ckpt`, right after the validation that found it."""
    return ModelCheckpoint(
        dirpath=folder,
        filename="best",
        monitor=monitor,
        mode=mode,
        enable_version_counter=False,
        save_on_train_epoch_end=False,
    )


class DirectCheckpointIO(TorchCheckpointIO):
    """Keeps the best state, writes each state once, and reads with `weights_only=True`.

    Args:
        go_on: whether a checkpoint that cannot be written is only told; training then goes on to the next.
    """

    def __init__(self, go_on: bool = False) -> None:
        self.go_on = go_on
        self.best = KeptState()
        """The best state that this process has seen."""
        self._written: tuple[Identity, Path, str] | None = None

    def save_checkpoint(self, checkpoint: dict[str, Any], path: _PATH, storage_options: Any | None = None) -> None:
        """Keep the state of `best.ckpt`; write that of another name, and before it the best one if it is not written.

        Raises:
            FailedWrite: one of them cannot be written; what was there before is as it was.
        """
        target = Path(path)
        if target.name == BEST:
            self.best.give(checkpoint)
            return
        try:
            self._write_best(target.parent)
            self._save(checkpoint, target)
        except FailedWrite as error:
            self._failed(error)

    def keep_best(self, folder: Path) -> None:
        """Copy the best state before training changes it, if it is not written; write it where memory is short."""
        if self.best.copied:
            return
        place = None if self.best.written else self.best.place()
        if place:
            self.best.copy(place)
            return
        try:
            self._write_best(folder)
        except FailedWrite as error:
            self._failed(error)
        self.best.drop()

    def load_checkpoint(
        self, path: _PATH, map_location: Any = "cpu", weights_only: bool | None = True
    ) -> dict[str, Any]:
        """Read tensors and plain values; see `read_checkpoint`."""
        return read_checkpoint(Path(path), mapped=False)

    def _write_best(self, folder: Path) -> None:
        if self.best.state is not None and not self.best.written:
            self._save(self.best.state, folder / BEST)
            self.best.written = True

    def _failed(self, error: FailedWrite) -> None:
        if not self.go_on:
            raise error
        print(f"warning: {error}; training goes on", flush=True)

    def _save(self, checkpoint: dict[str, Any], target: Path) -> None:
        folder, beside = target.parent, target.with_name(f".{target.name}.{os.getpid()}")
        state = (checkpoint["epoch"], checkpoint["global_step"], checkpoint.get(STATE, {}).get("point", ""))
        try:
            folder.mkdir(parents=True, exist_ok=True)
            digest = self._linked(state, target, beside)
            if digest is None:
                digest = write_with_sha256(beside, partial(_write, checkpoint))
            record_sha256(folder, target.name, digest, state[1])
            if target.name == LAST:
                _keep_previous(target)
            os.replace(beside, target)
            sync(folder)
        except (OSError, RuntimeError) as error:  # torch calls a full disk a RuntimeError
            why = (isinstance(error, OSError) and error.strerror) or _why_full(folder) or first_line(error)
            raise FailedWrite(f"{target}: cannot be written: {why}") from None
        finally:
            with contextlib.suppress(OSError):  # the folder is gone, or read-only
                beside.unlink(missing_ok=True)
        self._written = (state, target, digest)

    def _linked(self, state: Identity, target: Path, beside: Path) -> str | None:
        """The sum of the file that holds this state already and is now here too; None if there is none."""
        if self._written is None or self._written[0] != state or self._written[1] == target:
            return None
        try:
            os.link(self._written[1], beside)
        except OSError:  # a file system without hard links
            return None
        return self._written[2]


def _write(checkpoint: dict[str, Any], file: HashingFile) -> None:
    """Torch's own format, without the CRC-32 of each tensor, which takes longer than everything else together; the
    manifest has the sum of the whole file."""
    before = get_crc32_options()
    set_crc32_options(False)
    try:
        torch.save(checkpoint, file)  # type: ignore[arg-type]  # it asks for `write` and `flush` alone
    finally:
        set_crc32_options(before)


def _keep_previous(last: Path) -> None:
    """Give the last checkpoint the name `previous.ckpt` too, before another takes its own."""
    beside = last.with_name(f".{PREVIOUS}.{os.getpid()}")
    with contextlib.suppress(FileNotFoundError):
        try:
            os.link(last, beside)
            os.replace(beside, last.with_name(PREVIOUS))
        except FileNotFoundError:
            raise
        except OSError:  # no hard links: for a moment only this name is there
            os.replace(last, last.with_name(PREVIOUS))
        finally:
            # After a kill right here both names may be one file, and to rename one to the other then does nothing.
            beside.unlink(missing_ok=True)


class Sound(NamedTuple):
    """The checkpoint that a run goes on from."""

    path: Path | None
    """None if nothing was saved yet."""
    words: list[str]
    """What people should know of it."""


def newest_sound(folder: Path) -> Sound:
    """The newest whole checkpoint of a run; a damaged one is put aside as `last.ckpt.damaged`.

    Args:
        folder: the run folder.

    Raises:
        UserError: there are checkpoints, and all of them are damaged.
    """
    words: list[str] = []
    damaged: list[Path] = []
    for name in (LAST, PREVIOUS):
        path = folder / run_folder.CHECKPOINTS / name
        if not path.is_file():
            continue
        sound = is_intact(path)
        if sound is None:
            words.append(f"warning: {path.parent} has no manifest.json that can be read: {name} is used unchecked")
        if sound or sound is None:
            for each in damaged:
                os.replace(each, each.with_name(f"{each.name}.damaged"))
                words.append(f"warning: {each} is DAMAGED, put aside as {each.name}.damaged; {name} is used instead")
            return Sound(path, words)
        damaged.append(path)
    if damaged:
        names = " and ".join(str(path) for path in damaged)
        raise UserError(f"{names}: damaged (the sha256 is none of manifest.json); start a new run in another folder")
    return Sound(None, words)


def _why_full(folder: Path) -> str | None:
    """The system's own words on why nothing can be written here; torch keeps them to itself."""
    probe = folder / f".{PROBE_FILE}.{os.getpid()}"
    try:
        with probe.open("wb") as file:
            file.write(b"0" * PROBE)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        return error.strerror
    finally:
        with contextlib.suppress(OSError):
            probe.unlink(missing_ok=True)
    return None

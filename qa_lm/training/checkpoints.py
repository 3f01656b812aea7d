"""The two checkpoints of a run: the best and the last.

- Two callbacks, because `ModelCheckpoint(save_last=True)` with a monitor writes the last *saved* state, which is the
  best one again.
- A file is written beside its target, synced to the disk and renamed, straight from memory: Lightning's own way goes
  through a copy in memory and a second file, and a power cut could leave half of it.
- When the best state is also the last, both names share one file: for GPT-2 small that saves 1.5 GB and its writing.
- Loading takes tensors and plain values only, never code.
"""

import contextlib
import os
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.fabric.utilities.types import _PATH
from lightning.pytorch.callbacks import ModelCheckpoint

from qa_lm.errors import FailedWrite, first_line
from qa_lm.training.run_folder import sync

PROBE = 1 << 20
"""Bytes that are written to learn why a checkpoint could not be."""


def best_checkpoint(folder: Path, monitor: str, mode: str) -> ModelCheckpoint:
    """Keeps `best.ckpt`: the state with the best `monitor`, saved right after the validation that found it."""
    return ModelCheckpoint(
        dirpath=folder,
        filename="best",
        monitor=monitor,
        mode=mode,
        enable_version_counter=False,
        save_on_train_epoch_end=False,
    )


def last_checkpoint(folder: Path) -> ModelCheckpoint:
    """Keeps `last.ckpt`: the newest state, saved after each validation and when training is interrupted."""
    return ModelCheckpoint(
        dirpath=folder,
        filename="last",
        monitor=None,
        enable_version_counter=False,
        save_on_exception=True,
        save_on_train_epoch_end=False,
    )


class DirectCheckpointIO(TorchCheckpointIO):
    """Writes each state once, and reads with `weights_only=True`."""

    def __init__(self) -> None:
        self._written: tuple[tuple[int, int], Path] | None = None

    def save_checkpoint(self, checkpoint: dict[str, Any], path: _PATH, storage_options: Any | None = None) -> None:
        """Write the state to `path`; a state that has just been written under another name gets this name too.

        Raises:
            FailedWrite: it cannot be written; what was there before is as it was.
        """
        target = Path(path)
        beside = target.with_name(f".{target.name}.{os.getpid()}")
        state = (checkpoint["epoch"], checkpoint["global_step"])
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            if not self._linked(state, target, beside):
                torch.save(checkpoint, beside)
                sync(beside)
            os.replace(beside, target)
            sync(target.parent)
        except (OSError, RuntimeError) as error:  # torch calls a full disk a RuntimeError
            why = (isinstance(error, OSError) and error.strerror) or _why_full(target.parent) or first_line(error)
            raise FailedWrite(f"{target}: cannot be written: {why}") from None
        finally:
            with contextlib.suppress(OSError):  # the folder is gone, or read-only
                beside.unlink(missing_ok=True)
        self._written = (state, target)

    def load_checkpoint(
        self, path: _PATH, map_location: Any = "cpu", weights_only: bool | None = True
    ) -> dict[str, Any]:
        """Read tensors and plain values; anything else in the file is refused by torch."""
        return torch.load(path, map_location=map_location, weights_only=True, mmap=True)

    def _linked(self, state: tuple[int, int], target: Path, beside: Path) -> bool:
        if self._written is None or self._written[0] != state or self._written[1] == target:
            return False
        try:
            os.link(self._written[1], beside)
        except OSError:  # a file system without hard links
            return False
        return True


def _why_full(folder: Path) -> str | None:
    """The system's own words on why nothing can be written here; torch keeps them to itself."""
    probe = folder / f".probe.{os.getpid()}"
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

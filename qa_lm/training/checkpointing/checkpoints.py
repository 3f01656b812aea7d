"""The checkpoints of a run: `best.ckpt`, `last.ckpt`, and `previous.ckpt`, which is the former `last.ckpt`.

- The best state stays in memory until `last.ckpt` is saved, and is written right before it. So `best.ckpt` is always
  the best state that `last.ckpt` knows of, and a run that validates often does not write often.
- A file is written from memory under a temporary name, hashed meanwhile, synced to the disk and renamed. Lightning
  writes through a copy in memory and a second file, and a power failure could leave half of it.
- If the best state is also the last, both names share one file. For GPT-2 small that saves writing 1.5 GB.
- Loading accepts tensors and plain values only, never code (`qa_lm.run.checkpoint`).
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
from qa_lm.training.checkpointing.best_state import BestState

PROBE_BYTES = 1 << 20
"""Bytes that are written to find out why a checkpoint could not be written."""
Identity = tuple[int, int, str]
"""Epoch, optimizer step and point (see `qa_lm.training.checkpointing.last_checkpoint`) of a state."""


def best_checkpoint(folder: Path, monitor: str, mode: str) -> ModelCheckpoint:
    """Saves the state with the best `monitor` as `best.ckpt`, right after the validation that found it."""
    return ModelCheckpoint(
        dirpath=folder,
        filename="best",
        monitor=monitor,
        mode=mode,
        enable_version_counter=False,
        save_on_train_epoch_end=False,
    )


class DirectCheckpointIO(TorchCheckpointIO):
    """Keeps the best state in memory, writes each state once, and reads with `weights_only=True`.

    Args:
        warn_on_write_error: whether a checkpoint that cannot be written gives only a warning, and training continues.
        shares_memory: whether the tensors of a state are those that are being trained; gathered shards are not.
    """

    def __init__(self, warn_on_write_error: bool = False, shares_memory: bool = True) -> None:
        self.warn_on_write_error = warn_on_write_error
        self.best = BestState(shares_memory)
        """The best state of this process so far."""
        self._written: tuple[Identity, Path, str] | None = None

    def save_checkpoint(self, checkpoint: dict[str, Any], path: _PATH, storage_options: Any | None = None) -> None:
        """Keep the state of `best.ckpt` in memory; write any other, and before it a best state that is not written.

        Raises:
            FailedWrite: a checkpoint cannot be written. The files that were there before are unchanged.
        """
        target = Path(path)
        if target.name == BEST:
            self.best.set(checkpoint)
            return
        try:
            self._write_best(target.parent)
            self._save(checkpoint, target)
        except FailedWrite as error:
            self._failed(error)

    def keep_best(self, folder: Path) -> None:
        """Copy the best state before training changes it, unless it is written already. Write it if memory is short."""
        if self.best.copied:
            return
        device = None if self.best.written else self.best.device_with_room()
        if device:
            self.best.copy(device)
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
        if not self.warn_on_write_error:
            raise error
        print(f"warning: {error}; training continues", flush=True)

    def _save(self, checkpoint: dict[str, Any], target: Path) -> None:
        folder, temporary = target.parent, target.with_name(f".{target.name}.{os.getpid()}")
        state = (checkpoint["epoch"], checkpoint["global_step"], checkpoint.get(STATE, {}).get("point", ""))
        try:
            folder.mkdir(parents=True, exist_ok=True)
            digest = self._link(state, target, temporary)
            if digest is None:
                digest = write_with_sha256(temporary, partial(_write, checkpoint))
            record_sha256(folder, target.name, digest, state[1])
            if target.name == LAST:
                _keep_previous(target)
            os.replace(temporary, target)
            sync(folder)
        except (OSError, RuntimeError) as error:  # torch reports a full disk as a RuntimeError
            reason = (isinstance(error, OSError) and error.strerror) or _write_error(folder) or first_line(error)
            raise FailedWrite(f"{target}: cannot be written: {reason}") from None
        finally:
            with contextlib.suppress(OSError):  # the folder is gone, or read-only
                temporary.unlink(missing_ok=True)
        self._written = (state, target, digest)

    def _link(self, state: Identity, target: Path, temporary: Path) -> str | None:
        """Link the file that already holds this state to the temporary name and return its sha256; None without one."""
        if self._written is None or self._written[0] != state or self._written[1] == target:
            return None
        try:
            os.link(self._written[1], temporary)
        except OSError:  # a file system without hard links
            return None
        return self._written[2]


def _write(checkpoint: dict[str, Any], file: HashingFile) -> None:
    """Write torch's format without the CRC-32 of each tensor, which takes longer than everything else together. The
    manifest has the sha256 of the whole file."""
    before = get_crc32_options()
    set_crc32_options(False)
    try:
        torch.save(checkpoint, file)  # type: ignore[arg-type]  # it needs only `write` and `flush`
    finally:
        set_crc32_options(before)


def _keep_previous(last: Path) -> None:
    """Give `last.ckpt` the name `previous.ckpt` too, before a new file replaces it."""
    temporary = last.with_name(f".{PREVIOUS}.{os.getpid()}")
    with contextlib.suppress(FileNotFoundError):
        try:
            os.link(last, temporary)
            os.replace(temporary, last.with_name(PREVIOUS))
        except FileNotFoundError:
            raise
        except OSError:  # no hard links: for a moment only `previous.ckpt` exists
            os.replace(last, last.with_name(PREVIOUS))
        finally:
            # If the process is killed here, both names may be one file. Renaming one to the other then does nothing.
            temporary.unlink(missing_ok=True)


class ValidCheckpoint(NamedTuple):
    """The checkpoint from which a run is resumed."""

    path: Path | None
    """None if no checkpoint was saved yet."""
    messages: list[str]
    """Warnings for the user, such as about a damaged file."""


def newest_valid_checkpoint(folder: Path, rename: bool = True) -> ValidCheckpoint:
    """Find the newest intact checkpoint of a run.

    Args:
        folder: the run folder.
        rename: whether to rename damaged ones to `NAME.damaged`: in one process only.

    Raises:
        UserError: all checkpoints are damaged.
    """
    messages: list[str] = []
    damaged: list[Path] = []
    for name in (LAST, PREVIOUS):
        path = folder / run_folder.CHECKPOINTS / name
        if not path.is_file():
            continue
        intact = is_intact(path)
        if intact is None:
            messages.append(f"warning: {path.parent} has no readable manifest.json: {name} is used without a check")
        if intact or intact is None:
            for bad in damaged if rename else []:
                os.replace(bad, bad.with_name(f"{bad.name}.damaged"))
                messages.append(f"warning: {bad} is DAMAGED; renamed to {bad.name}.damaged, and {name} is used instead")
            return ValidCheckpoint(path, messages)
        damaged.append(path)
    if damaged:
        names = " and ".join(str(path) for path in damaged)
        raise UserError(f"{names}: damaged (the sha256 is not in manifest.json); start a new run in another folder")
    return ValidCheckpoint(None, messages)


def _write_error(folder: Path) -> str | None:
    """Return the operating system's message for a failed write in this folder, which torch does not pass on."""
    probe = folder / f".{PROBE_FILE}.{os.getpid()}"
    try:
        with probe.open("wb") as file:
            file.write(b"0" * PROBE_BYTES)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        return error.strerror
    finally:
        with contextlib.suppress(OSError):
            probe.unlink(missing_ok=True)
    return None

"""The manifest of the checkpoints: the sha256 of each file, so that a damaged one is found before it is used.

A file and its line in another file cannot change in one step. So the manifest is written first and keeps the sums of
the files before: whatever moment a run is killed at, every whole file on the disk is in it.
"""

import hashlib
import json
import os
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, BinaryIO

from qa_lm.run.atomic import write_json
from qa_lm.run.run_folder import MANIFEST

KEPT = 3
"""Sums kept for a name: of the file that comes, of the one that it replaces, and of the one before."""


def sha256_of(path: Path) -> str:
    """The file's sha256, read in blocks."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class SummedFile:
    """A file that is summed and sent to the disk by other threads while it is written.

    Args:
        file: open for writing.
        threads: two at least.
    """

    SYNC_EVERY = 1 << 28
    """Bytes after which what has been written so far is sent to the disk."""

    def __init__(self, file: BinaryIO, threads: ThreadPoolExecutor) -> None:
        self._file, self._threads, self._sum = file, threads, hashlib.sha256()
        self._syncing: Future[None] | None = None
        self._unsynced = 0
        self._error: OSError | None = None

    def write(self, data: memoryview) -> int:
        """Write and sum; the caller may change the bytes afterwards. An error waits for the end: torch's writer would
        try to complete its file all the same, and abort the process."""
        if self._error:
            return len(data)
        summed = self._threads.submit(self._sum.update, data)
        try:
            self._file.write(data)
            self._sync_sometimes(len(data))
        except OSError as error:
            self._error = error
        summed.result()
        return len(data)

    def flush(self) -> None:
        """For torch, which asks for it; `end` flushes."""

    def end(self) -> str:
        """The sum, once every byte is on the disk.

        Raises:
            OSError: some are not.
        """
        if self._error:
            raise self._error
        self._file.flush()
        if self._syncing:
            self._syncing.result()
        os.fsync(self._file.fileno())
        return self._sum.hexdigest()

    def _sync_sometimes(self, count: int) -> None:
        self._unsynced += count
        if self._unsynced >= self.SYNC_EVERY and (self._syncing is None or self._syncing.done()):
            if self._syncing:
                self._syncing.result()
            self._syncing, self._unsynced = self._threads.submit(os.fsync, self._file.fileno()), 0


def written_and_summed(path: Path, write: Callable[[SummedFile], None]) -> str:
    """The sha256 of a new file, which `write` fills."""
    with ThreadPoolExecutor(2) as threads, path.open("wb") as file:
        summed = SummedFile(file, threads)
        write(summed)
        return summed.end()


def announce(folder: Path, name: str, digest: str, step: int) -> None:
    """Note the sum of a file that is about to be there.

    Args:
        folder: the checkpoints' folder.
        name: the name that the file will have.
        digest: its sha256.
        step: the optimizer step that it holds.
    """
    known = read_manifest(folder) or {}
    before = [each for each in known.get(name, []) if each["sha256"] != digest]
    known[name] = [{"sha256": digest, "step": step}, *before][:KEPT]
    write_json(folder / MANIFEST, known)


def read_manifest(folder: Path) -> dict[str, list[dict[str, Any]]] | None:
    """Name to sums, the newest first; None if there is no manifest that can be read."""
    try:
        found = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        # Whatever else it may hold: only this is looked at.
        return {
            str(name): [{"sha256": str(each["sha256"]), "step": int(each["step"])} for each in sums]
            for name, sums in found.items()
        }
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None


def is_intact(path: Path) -> bool | None:
    """Whether the file is one that was written whole here; None if there is no manifest to tell."""
    known = read_manifest(path.parent)
    if known is None:
        return None
    return sha256_of(path) in {each["sha256"] for sums in known.values() for each in sums}

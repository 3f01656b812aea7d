"""The manifest of the checkpoints: the sha256 of each file, to detect damaged files before they are used.

A file and its entry in the manifest cannot change in one step. The manifest is therefore written first and keeps the
sums of the previous files: whenever a run is killed, every intact file on disk has its sum in the manifest.
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
"""Sums kept per name: of the new file, of the one that it replaces, and of the one before."""


def sha256_of(path: Path) -> str:
    """Compute the sha256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class HashingFile:
    """A file whose sha256 is computed, and whose content is synced to disk, by other threads while it is written.

    Args:
        file: a file open for writing.
        threads: a pool of at least two threads.
    """

    SYNC_EVERY = 1 << 28
    """Number of bytes after which the written content is synced to disk."""

    def __init__(self, file: BinaryIO, threads: ThreadPoolExecutor) -> None:
        self._file, self._threads, self._sum = file, threads, hashlib.sha256()
        self._syncing: Future[None] | None = None
        self._unsynced = 0
        self._error: OSError | None = None

    def write(self, data: memoryview) -> int:
        """Write and hash the data, which the caller may change afterwards. `end` raises errors: after an error here,
        torch's writer would still try to complete its file, and abort the process."""
        if self._error:
            return len(data)
        summed = self._threads.submit(self._sum.update, data)
        try:
            self._file.write(data)
            self._sync_if_due(len(data))
        except OSError as error:
            self._error = error
        summed.result()
        return len(data)

    def flush(self) -> None:
        """Do nothing; torch requires this method, and `end` flushes."""

    def end(self) -> str:
        """Wait until all bytes are on disk, and return the sha256.

        Raises:
            OSError: writing failed.
        """
        if self._error:
            raise self._error
        self._file.flush()
        if self._syncing:
            self._syncing.result()
        os.fsync(self._file.fileno())
        return self._sum.hexdigest()

    def _sync_if_due(self, count: int) -> None:
        self._unsynced += count
        if self._unsynced >= self.SYNC_EVERY and (self._syncing is None or self._syncing.done()):
            if self._syncing:
                self._syncing.result()
            self._syncing, self._unsynced = self._threads.submit(os.fsync, self._file.fileno()), 0


def write_with_sha256(path: Path, write: Callable[[HashingFile], None]) -> str:
    """Create a file with `write`, and return its sha256."""
    with ThreadPoolExecutor(2) as threads, path.open("wb") as file:
        summed = HashingFile(file, threads)
        write(summed)
        return summed.end()


def record_sha256(folder: Path, name: str, digest: str, step: int) -> None:
    """Record the sha256 of a file in the manifest, before the file is renamed to its final name.

    Args:
        folder: the folder of the checkpoints.
        name: the final name of the file.
        digest: the sha256 of the file.
        step: the optimizer step of the checkpoint.
    """
    known = read_manifest(folder) or {}
    before = [each for each in known.get(name, []) if each["sha256"] != digest]
    known[name] = [{"sha256": digest, "step": step}, *before][:KEPT]
    write_json(folder / MANIFEST, known)


def read_manifest(folder: Path) -> dict[str, list[dict[str, Any]]] | None:
    """Read the manifest: the sums of each name, newest first; None if the manifest is missing or unreadable."""
    try:
        content = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        # Anything else in the file is ignored.
        return {
            str(name): [{"sha256": str(each["sha256"]), "step": int(each["step"])} for each in sums]
            for name, sums in content.items()
        }
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None


def is_intact(path: Path) -> bool | None:
    """Whether the file is exactly as it was written; None if the manifest is missing or unreadable."""
    known = read_manifest(path.parent)
    if known is None:
        return None
    return sha256_of(path) in {each["sha256"] for sums in known.values() for each in sums}

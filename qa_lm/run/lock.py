"""Locks: only one process at a time uses a run folder or a sweep folder."""

import contextlib
import json
import os
import socket
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

from filelock import FileLock, Timeout

from qa_lm.errors import FailedWrite, UserError
from qa_lm.run.atomic import write_json
from qa_lm.run.run_folder import HOLDER, LOCK


@contextlib.contextmanager
def run_lock(folder: Path) -> Iterator[None]:
    """Lock the folder while the block runs. The system releases the lock when the process ends, for any reason.

    Readers need no lock, because files are written atomically.

    Args:
        folder: the folder of a run or a sweep; created if it does not exist.

    Raises:
        UserError: another process holds the lock; the message names the process, its machine and since when.
        FailedWrite: the folder is read-only, or its file system has no locks, as with some network file systems.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / LOCK)
        lock.acquire(blocking=False)
    except Timeout:
        raise UserError(f"{folder}: in use by {_holder(folder)}; wait for it, or choose another folder") from None
    except OSError as error:
        raise FailedWrite(f"{folder}: cannot be locked: {error.strerror or error}; choose another folder") from None
    try:
        since = datetime.now().isoformat(sep=" ", timespec="seconds")
        write_json(folder / HOLDER, {"pid": os.getpid(), "host": socket.gethostname(), "since": since})
        yield
    finally:
        with contextlib.suppress(OSError):  # the folder was deleted, or is read-only
            (folder / HOLDER).unlink(missing_ok=True)
            if [each.name for each in folder.iterdir()] == [LOCK]:  # no run was started
                (folder / LOCK).unlink()
        lock.release()


def _holder(folder: Path) -> str:
    try:
        holder = json.loads((folder / HOLDER).read_text(encoding="utf-8"))
        return f"process {int(holder['pid'])} on {str(holder['host'])[:100]} since {str(holder['since'])[:19]}"
    except (OSError, ValueError, TypeError, KeyError):
        return "another process"

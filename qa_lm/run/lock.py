"""One process at a time writes a run folder, or runs the sweep of a sweep folder."""

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
    """Hold the folder while the block runs; the system releases it when the process ends, however it ends.

    Readers need no lock: every file of a run appears whole.

    Args:
        folder: the folder of a run or a sweep; created if it does not exist.

    Raises:
        UserError: another process holds it; the message names the process, its machine and since when.
        FailedWrite: the folder is read-only, or its file system has no locks, as some network file systems.
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
        with contextlib.suppress(OSError):  # the folder is gone, or read-only
            (folder / HOLDER).unlink(missing_ok=True)
            if [each.name for each in folder.iterdir()] == [LOCK]:  # no run was begun
                (folder / LOCK).unlink()
        lock.release()


def _holder(folder: Path) -> str:
    try:
        found = json.loads((folder / HOLDER).read_text(encoding="utf-8"))
        return f"process {int(found['pid'])} on {str(found['host'])[:100]} since {str(found['since'])[:19]}"
    except (OSError, ValueError, TypeError, KeyError):
        return "another process"

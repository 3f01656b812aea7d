"""The lock of a sweep folder, which only one sweep at a time may use."""

import atexit
import contextlib
import functools
from pathlib import Path

from qa_lm.run.lock import run_lock


@functools.cache
def lock_sweep(folder: Path) -> None:
    """Lock the folder against other sweeps until this process ends.

    Args:
        folder: the sweep folder; created if it does not exist.

    Raises:
        UserError: another process holds the lock; the message names the process, its machine and since when.
    """
    stack = contextlib.ExitStack()
    stack.enter_context(run_lock(folder))
    atexit.register(stack.close)

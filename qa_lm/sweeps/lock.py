"""One sweep at a time uses a sweep folder."""

import atexit
import contextlib
import functools
from pathlib import Path

from qa_lm.run.lock import run_lock


@functools.cache
def hold_sweep(folder: Path) -> None:
    """Keep other sweeps out of the folder until this process ends.

    Args:
        folder: the sweep folder; made if it is not there.

    Raises:
        UserError: another process holds it; the message names the process, its machine and since when.
    """
    stack = contextlib.ExitStack()
    stack.enter_context(run_lock(folder))
    atexit.register(stack.close)

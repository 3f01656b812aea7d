"""Ctrl-C and SIGTERM: the current step is finished and saved, then the run ends. A second signal exits immediately.

An exception at the moment of the signal could interrupt an optimizer between two parameters. So during training a
handler only records the signal, and `qa_lm.training.checkpointing.last_checkpoint` looks for it where the state is
consistent. Before and after training nothing needs saving, and the process exits immediately.
"""

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from types import FrameType

from lightning.pytorch.plugins.environments import SLURMEnvironment

TIME_LIMIT_SIGNALS: tuple[int, ...] = tuple(
    getattr(signal, name) for name in ("SIGUSR1", "SIGUSR2") if hasattr(signal, name)
)
"""Signals that SLURM sends before a job's time limit: users ask for the first, submitit for the second. Windows has
neither."""
EXIT_CODES: dict[int, int] = {signal.SIGINT: 130, signal.SIGTERM: 143} | dict.fromkeys(TIME_LIMIT_SIGNALS, 143)
"""Exit code for each signal, as shells define it."""
SUBMITIT_RESTART_CODE = 144
"""The exit code after which submitit's local launcher restarts a job. submitit does not export it."""


class Interrupted(SystemExit):
    """A signal ended training, and the state is saved.

    Args:
        number: the signal number.
    """

    def __init__(self, number: int) -> None:
        again = number in TIME_LIMIT_SIGNALS and in_local_submitit()
        super().__init__(SUBMITIT_RESTART_CODE if again else EXIT_CODES[number])
        self.number = number


class SignalHandler:
    """Records signals during training.

    Args:
        enabled: whether `install` replaces the handlers of the process. If not, no signal is recorded.
    """

    def __init__(self, enabled: bool = True) -> None:
        self.enabled = enabled
        self.requested: int | None = None
        """The signal that requests the end of training; None if there was none."""

    def install(self) -> None:
        """Install the handlers; the Trainer restores the former ones when it ends.

        This replaces Lightning's own handlers too, which would save for SLURM in the middle of a step, and submitit's,
        which would requeue the job without saving.
        """
        if not self.enabled or threading.current_thread() is not threading.main_thread():
            return
        on_cluster = in_slurm() or in_local_submitit()
        for number in (signal.SIGINT, signal.SIGTERM, *(TIME_LIMIT_SIGNALS if on_cluster else ())):
            signal.signal(number, self._record)

    def _record(self, number: int, frame: FrameType | None) -> None:
        if self.requested is not None:
            _exit_immediately(number, frame)
        self.requested = number


@contextlib.contextmanager
def exit_on_signals() -> Iterator[None]:
    """Raise on Ctrl-C and SIGTERM, so that temporary files are deleted. A second signal exits immediately.

    The former handlers are always restored at the end: in a notebook the next Ctrl-C must count as a first one.
    """

    def raise_exception(number: int, frame: FrameType | None) -> None:
        exit_on_next_signal()
        if number == signal.SIGINT:
            raise KeyboardInterrupt
        raise Interrupted(number)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, raise_exception) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            if signal.getsignal(number) in (raise_exception, _exit_immediately):
                signal.signal(number, handler)


def exit_on_next_signal() -> None:
    """Let Ctrl-C and SIGTERM end the process immediately, for a script that is about to end anyway."""
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, _exit_immediately)


def _exit_immediately(number: int, frame: FrameType | None) -> None:
    """End the process without an exception, which other code could catch and delay."""
    os.write(sys.stderr.fileno(), b"exited immediately\n")
    os._exit(EXIT_CODES[number])


def in_slurm() -> bool:
    """Whether this process is a SLURM job that can be requeued."""
    return SLURMEnvironment.detect()


def in_local_submitit() -> bool:
    """Whether this process is a job of `hydra/launcher=submitit_local`, which has a time limit too."""
    return os.environ.get("SUBMITIT_EXECUTOR") == "local"


def requeue() -> str:
    """Ask SLURM to requeue this job. Returns a message with the result."""
    if in_local_submitit():
        return "submitit restarts this job"  # because of the exit code
    job = os.environ.get("SLURM_JOB_ID", "")
    if array := os.environ.get("SLURM_ARRAY_JOB_ID"):
        job = f"{array}_{os.environ['SLURM_ARRAY_TASK_ID']}"
    try:
        subprocess.run(["scontrol", "requeue", job], check=True, capture_output=True, encoding="utf-8", timeout=60)
    except (OSError, subprocess.SubprocessError) as error:
        return f"SLURM did not requeue job {job}: {error}"
    return f"SLURM requeued job {job}"

"""Ctrl-C and SIGTERM: the step that runs is finished and saved, then the run ends; a second one ends it at once.

A signal that raises where it happens to arrive could meet an optimizer between two parameters. So while training it
only leaves a note, which is read where the state is whole (`qa_lm.training.checkpointing.last_checkpoint`). Everywhere
else nothing needs saving, and the process leaves at once.
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

TIME_IS_SHORT: tuple[int, ...] = tuple(
    getattr(signal, each) for each in ("SIGUSR1", "SIGUSR2") if hasattr(signal, each)
)
"""What SLURM is asked to send before a job's time is over: the first by people, the second by submitit. Windows has
neither."""
CODES: dict[int, int] = {signal.SIGINT: 130, signal.SIGTERM: 143} | dict.fromkeys(TIME_IS_SHORT, 143)
"""Exit codes, as shells have them."""
SUBMITIT_STARTS_AGAIN = 144
"""The exit code after which submitit's launcher for this machine starts a job again; it does not export the name."""


class Interrupted(SystemExit):
    """Training was asked to end, and what was trained is saved.

    Args:
        number: the signal.
    """

    def __init__(self, number: int) -> None:
        again = number in TIME_IS_SHORT and in_local_submitit()
        super().__init__(SUBMITIT_STARTS_AGAIN if again else CODES[number])
        self.number = number


class Interruption:
    """Takes notes of signals while a run trains.

    Args:
        listens: whether it replaces the process's signal handlers while the run trains; if not, nothing is ever noted.
    """

    def __init__(self, listens: bool = True) -> None:
        self.listens = listens
        self.requested: int | None = None
        """The signal that asks for an end."""

    def listen(self) -> None:
        """From now on signals leave a note; the Trainer puts back what was there before when it ends.

        Lightning's own handlers, which would save for SLURM in the middle of a step, and submitit's, which would queue
        the job again without saving, are replaced too.
        """
        if not self.listens or threading.current_thread() is not threading.main_thread():
            return
        for number in (signal.SIGINT, signal.SIGTERM, *(TIME_IS_SHORT if in_slurm() or in_local_submitit() else ())):
            signal.signal(number, self._note)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.requested is not None:
            _leave(number, frame)
        self.requested = number


@contextlib.contextmanager
def leaving_at_once() -> Iterator[None]:
    """Ctrl-C and SIGTERM raise, so that what is temporary is taken away; a second one ends the process at once.

    The handlers of before are back afterwards in any case: a notebook goes on, and its next Ctrl-C is no second one.
    """

    def leave(number: int, frame: FrameType | None) -> None:
        next_signal_ends()
        if number == signal.SIGINT:
            raise KeyboardInterrupt
        raise Interrupted(number)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, leave) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            if signal.getsignal(number) in (leave, _leave):
                signal.signal(number, handler)


def next_signal_ends() -> None:
    """From now on Ctrl-C and SIGTERM end the process at once; for one that is about to end, as a script's is."""
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, _leave)


def _leave(number: int, frame: FrameType | None) -> None:
    """Not by an exception: whoever asks twice does not want to wait for what might catch it."""
    os.write(sys.stderr.fileno(), b"left at once\n")
    os._exit(CODES[number])


def in_slurm() -> bool:
    """Whether this process is a SLURM job that may be queued again."""
    return SLURMEnvironment.detect()


def in_local_submitit() -> bool:
    """Whether this process is a job of `hydra/launcher=submitit_local`, which has a time-out too."""
    return os.environ.get("SUBMITIT_EXECUTOR") == "local"


def requeue() -> str:
    """Ask SLURM to start this job again; the words that say what came of it."""
    if in_local_submitit():
        return "submitit starts this job again"  # by the exit code
    job = os.environ.get("SLURM_JOB_ID", "")
    if array := os.environ.get("SLURM_ARRAY_JOB_ID"):
        job = f"{array}_{os.environ['SLURM_ARRAY_TASK_ID']}"
    try:
        subprocess.run(["scontrol", "requeue", job], check=True, capture_output=True, encoding="utf-8", timeout=60)
    except (OSError, subprocess.SubprocessError) as error:
        return f"SLURM did not take job {job} back: {error}"
    return f"SLURM starts job {job} again"

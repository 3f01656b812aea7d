"""One job as a process: how it is started, told to stop, and ended with all that it started."""

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from shlex import join

from hydra_plugins.qa_lm_processes._jobs import LOG, Claim, Job, State

THREADS = ("OMP_NUM_THREADS", "RAYON_NUM_THREADS")
"""Variables that bound a process's threads: of torch, of tokenizers."""
GPUS = Path("/proc/driver/nvidia/gpus")


@dataclass
class Running:
    """A job whose process was started."""

    job: Job
    claim: Claim
    process: "subprocess.Popen[bytes]"
    slot: int
    since: float
    """By `time.monotonic`."""

    def tell(self, number: signal.Signals) -> None:
        """Send a signal to the job's first process, which passes it on to its own: a data loader's worker that got
        SIGTERM itself would look like one that crashed."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.process.pid, number)

    def kill(self) -> None:
        """End the job's first process and all that it started."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)


def start(job: Job, claim: Claim, command: Sequence[str], environment: Mapping[str, str], slot: int) -> Running:
    """Start a job's process in a group of its own, so that a terminal's Ctrl-C does not reach it past us.

    Args:
        job: the job.
        claim: that it is ours; the process inherits its lock.
        command: program and arguments.
        environment: all variables of the process.
        slot: which of the places for running jobs it takes.
    """
    claim.record.starts += 1
    claim.record.state, claim.record.exit_code = State.running, None
    claim.save()
    with (claim.folder / LOG).open("ab") as log:
        now = datetime.now().isoformat(sep=" ", timespec="seconds")
        log.write(f"--- start {claim.record.starts}, {now}: {join(command)}\n".encode())
        log.flush()
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=environment,
            process_group=0,
            pass_fds=[claim.lock],
        )
    return Running(job, claim, process, slot, time.monotonic())


def end(running: Running, exit_code: int, stopping: bool) -> None:
    """Note how a job's process ended, and clear away what it may have left.

    Args:
        running: the job.
        exit_code: its process's.
        stopping: whether it had been told to stop.
    """
    running.kill()
    record = running.claim.record
    record.seconds = round(record.seconds + time.monotonic() - running.since, 3)
    record.exit_code = exit_code
    record.state = State.finished if exit_code == 0 else State.interrupted if stopping else State.failed
    running.claim.save()


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def environment(jobs: int, slot: int) -> dict[str, str]:
    """The variables of a job, one of several at once, with its share of cores and GPUs.

    Alone it gets what it would get without a sweep.

    Args:
        jobs: how many run at once.
        slot: which of them this is, from 0.
    """
    found = dict(os.environ)
    # scripts/train.py sets it for its own ends; in a job it would make a traceback of every mistake.
    found.pop("HYDRA_FULL_ERROR", None)
    found["PYTHONUNBUFFERED"] = "1"  # so that job.log shows what happens as it happens
    if jobs > 1:
        for name in THREADS:
            found.setdefault(name, str(max(1, cores() // jobs)))
        if gpus := share_of_gpus(_gpus(), jobs, slot):
            found["CUDA_VISIBLE_DEVICES"] = ",".join(gpus)
    return found


def share_of_gpus(gpus: list[str], jobs: int, slot: int) -> list[str]:
    """The GPUs of one of several jobs at once: its part of them, or one that it shares where there are fewer."""
    if len(gpus) >= jobs:
        return gpus[slot::jobs]
    return [gpus[slot % len(gpus)]] if gpus else []


def _gpus() -> list[str]:
    if (visible := os.environ.get("CUDA_VISIBLE_DEVICES")) is not None:
        return [each for each in visible.split(",") if each]
    return [str(number) for number in range(len(list(GPUS.iterdir())))] if GPUS.is_dir() else []

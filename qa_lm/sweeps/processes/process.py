"""The process of a job: its environment, its start, and how it is stopped together with everything it started."""

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from shlex import join

import psutil

from qa_lm.run.atomic import write_json
from qa_lm.sweeps.processes.jobs import LOG, RECORD, RESULT, Job, Record, State, read_record

THREADS = ("OMP_NUM_THREADS", "RAYON_NUM_THREADS")
"""Environment variables that limit the threads of torch and of tokenizers."""
GPUS = Path("/proc/driver/nvidia/gpus")
SAVE_SECONDS = 60.0
"""Time that a process left by a killed sweep has to save its state."""
CLOCK_SECONDS = 2.0
"""Accuracy of the start time of a process."""


@dataclass
class Running:
    """A job with its process."""

    job: Job
    process: "subprocess.Popen[bytes]"
    slot: int
    """Its place among the jobs that run at once, from 0."""
    since: float
    """Start, by `time.monotonic`."""
    twins: list[Job] = field(default_factory=list)
    """Jobs with the same settings, which get the same result."""

    def send(self, number: signal.Signals) -> None:
        """Send a signal to the job's first process alone, which stops its children itself: a data loader's worker that
        got SIGTERM would look like one that crashed."""
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(number)

    def end(self, stopping: bool) -> None:
        """Record the exit code of the ended process, and kill what it left behind.

        Args:
            stopping: whether the process had been asked to stop.
        """
        kill(self.process.pid)
        record, code = self.job.record, self.process.wait()
        record.seconds = round(record.seconds + time.monotonic() - self.since, 3)
        record.exit_code, record.pid, record.since = code, None, None
        record.state = State.finished if code == 0 else State.interrupted if stopping else State.failed
        self.job.save()


def start(job: Job, command: Sequence[str], environment: dict[str, str], slot: int) -> Running:
    """Start the process of a job, in a process group of its own: a terminal sends Ctrl-C only to this process.

    Args:
        job: the job.
        command: program and arguments.
        environment: all environment variables.
        slot: see `Running`.
    """
    record = job.record
    record.starts += 1
    record.state, record.exit_code, record.since = State.running, None, time.time()
    with (job.folder / LOG).open("ab") as log:
        now = datetime.now().isoformat(sep=" ", timespec="seconds")
        log.write(f"--- start {record.starts}, {now}: {join(command)}\n".encode())
        log.flush()
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, env=environment, process_group=0
        )
    record.pid = process.pid
    job.save()
    return Running(job, process, slot, time.monotonic())


def kill(pid: int) -> None:
    """Kill a job's first process and everything that it started."""
    with contextlib.suppress(OSError):
        if hasattr(os, "killpg"):
            os.killpg(pid, signal.SIGKILL)
        else:
            os.kill(pid, signal.SIGTERM)  # on Windows this ends a process at once


def stop_leftovers(sweep: Path) -> None:
    """Stop the jobs that a killed sweep left running, so that they can be resumed; each may save its state first.

    Args:
        sweep: the sweep folder.
    """
    records = {path.parent: read_record(path.parent) for path in sweep.glob(f"*/{RECORD}")}
    unfinished = {folder: record for folder, record in records.items() if record and record.state is State.running}
    running = {record.pid: record for record in unfinished.values() if record.pid and _is_running(record)}
    if running:
        print(f"stopping {len(running)} running jobs of an earlier sweep that was killed", flush=True)
    for pid in running:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
    end = time.monotonic() + SAVE_SECONDS
    while any(map(_is_running, running.values())) and time.monotonic() < end:
        time.sleep(0.1)
    for pid in running:
        kill(pid)
    for folder, record in unfinished.items():
        finished = (folder / RESULT).is_file()
        record.state, record.exit_code = (State.finished, 0) if finished else (State.interrupted, None)
        record.pid = record.since = None
        write_json(folder / RECORD, asdict(record))


def _is_running(record: Record) -> bool:
    """Whether the process of a job runs; another process may have its number now."""
    try:
        process = psutil.Process(record.pid)
        return (
            abs(process.create_time() - (record.since or 0)) < CLOCK_SECONDS
            and process.status() != psutil.STATUS_ZOMBIE
        )
    except psutil.Error:
        return False


def cores() -> int:
    """Number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def job_environment(jobs: int, slot: int) -> dict[str, str]:
    """The environment variables of a job, with its share of cores and GPUs.

    A job that runs alone gets the variables of this process.

    Args:
        jobs: number of jobs that run at once.
        slot: place of this job among them, from 0.
    """
    found = dict(os.environ)
    # The training command sets it for itself; a job that had it would print a traceback for each mistake of the user.
    found.pop("HYDRA_FULL_ERROR", None)
    found["PYTHONUNBUFFERED"] = "1"  # job.log is up to date at all times
    if jobs > 1:
        for name in THREADS:
            found.setdefault(name, str(max(1, cores() // jobs)))
        if gpus := share_of_gpus(_gpus(), jobs, slot):
            found["CUDA_VISIBLE_DEVICES"] = ",".join(gpus)
    return found


def share_of_gpus(gpus: list[str], jobs: int, slot: int) -> list[str]:
    """The GPUs of one of several jobs: its part of them, or a shared one if there are fewer GPUs than jobs."""
    if len(gpus) >= jobs:
        return gpus[slot::jobs]
    return [gpus[slot % len(gpus)]] if gpus else []


def _gpus() -> list[str]:
    if (visible := os.environ.get("CUDA_VISIBLE_DEVICES")) is not None:
        return [each for each in visible.split(",") if each]
    return [str(number) for number in range(len(list(GPUS.iterdir())))] if GPUS.is_dir() else []

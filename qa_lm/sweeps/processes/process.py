"""The process of a job: its environment, start and end, including all processes that it started."""

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
"""Seconds that a running process of a killed sweep gets to save its state."""
CLOCK_SECONDS = 2.0
"""Accuracy of the start time of a process, in seconds."""


@dataclass
class RunningJob:
    """A running job with its process."""

    job: Job
    process: "subprocess.Popen[bytes]"
    slot: int
    """Number of its slot among the jobs that run at once, from 0."""
    since: float
    """Start time, from `time.monotonic`."""
    twins: list[Job] = field(default_factory=list)
    """Other jobs with the same settings, which get the same result."""

    def send(self, number: signal.Signals) -> None:
        """Send a signal to the job's main process only. It stops its children itself: a data loader's worker that gets
        SIGTERM would look like a crash."""
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(number)

    def end(self, stopping: bool) -> None:
        """Record the exit code of the process, and kill what it left running.

        Args:
            stopping: whether the process was asked to stop.
        """
        kill(self.process.pid)
        record, code = self.job.record, self.process.wait()
        record.seconds = round(record.seconds + time.monotonic() - self.since, 3)
        record.exit_code, record.pid, record.since = code, None, None
        record.state = State.finished if code == 0 else State.interrupted if stopping else State.failed
        self.job.save()


def start(job: Job, command: Sequence[str], environment: dict[str, str], slot: int) -> RunningJob:
    """Start the process of a job in its own process group, so that Ctrl-C in a terminal does not reach it.

    Args:
        job: the job.
        command: program and arguments.
        environment: all environment variables.
        slot: see `RunningJob`.
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
    return RunningJob(job, process, slot, time.monotonic())


def kill(pid: int) -> None:
    """Kill a job's main process and everything that it started."""
    with contextlib.suppress(OSError):
        if hasattr(os, "killpg"):
            os.killpg(pid, signal.SIGKILL)
        else:
            os.kill(pid, signal.SIGTERM)  # on Windows this kills the process


def stop_leftovers(sweep: Path) -> None:
    """Stop the jobs that a killed sweep left running, so that they can be resumed. They may save their state first.

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
    """Whether the process of a job still runs. Another process may have reused its id, so compare start times."""
    try:
        process = psutil.Process(record.pid)
        return (
            abs(process.create_time() - (record.since or 0)) < CLOCK_SECONDS
            and process.status() != psutil.STATUS_ZOMBIE
        )
    except psutil.Error:
        return False


def cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def job_environment(jobs: int, slot: int) -> dict[str, str]:
    """Return the environment variables of a job, with its share of cores and GPUs.

    If only one job runs at a time, it gets all of them.

    Args:
        jobs: number of jobs that run at once.
        slot: number of this job's slot among them, from 0.
    """
    environment = dict(os.environ)
    # The training command sets it for itself. A job that inherited it would print tracebacks for the user's mistakes.
    environment.pop("HYDRA_FULL_ERROR", None)
    environment["PYTHONUNBUFFERED"] = "1"  # keeps job.log up to date
    if jobs > 1:
        for name in THREADS:
            environment.setdefault(name, str(max(1, cores() // jobs)))
        if gpus := share_of_gpus(_gpus(), jobs, slot):
            environment["CUDA_VISIBLE_DEVICES"] = ",".join(gpus)
    return environment


def share_of_gpus(gpus: list[str], jobs: int, slot: int) -> list[str]:
    """Return the GPUs of one of several jobs: its share, or a shared one if there are fewer GPUs than jobs."""
    if len(gpus) >= jobs:
        return gpus[slot::jobs]
    return [gpus[slot % len(gpus)]] if gpus else []


def _gpus() -> list[str]:
    if (visible := os.environ.get("CUDA_VISIBLE_DEVICES")) is not None:
        return [each for each in visible.split(",") if each]
    return [str(number) for number in range(len(list(GPUS.iterdir())))] if GPUS.is_dir() else []

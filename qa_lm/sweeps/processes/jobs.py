"""The jobs of a sweep, their processes, and their records in the sweep folder.

    multirun/2026-01-31/12-00-00/
        lr-0.001_seed-1_3f9a2c1d45/     a job; its name ends with the job's key
            job.json                    its record, see `Record`
            job.log                     its output, from all starts

The key is computed from the settings and data of a job, so that a later sweep with the same job finds its folder.
"""

import contextlib
import json
import math
import os
import signal
import subprocess
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from shlex import join

import psutil

from qa_lm.run.atomic import write_json
from qa_lm.run.run_folder import JOB, JOB_LOG, METRICS
from qa_lm.sweeps.processes.forks import ForkServer, JobProcess

SAVE_SECONDS = 60.0
"""Seconds that a running process of a killed sweep gets to save its state."""
CLOCK_SECONDS = 2.0
"""Accuracy of the start time of a process, in seconds."""


class State(StrEnum):
    """The state of a job; `left` means that it has not started."""

    left = "left"
    running = "running"
    interrupted = "interrupted"
    failed = "failed"
    finished = "finished"


@dataclass
class Record:
    """The content of job.json."""

    key: str
    overrides: list[str] = field(default_factory=list)
    """All overrides of the job, as the sweeper gave them."""
    swept: list[str] = field(default_factory=list)
    """Keys of the overrides that differ between jobs."""
    state: State = State.left
    exit_code: int | None = None
    """Exit code of the last process; negative if a signal killed it."""
    seconds: float = 0.0
    """Wall-clock time over all starts, in seconds."""
    starts: int = 0
    """Number of processes started."""
    pid: int | None = None
    """Process id while the job runs."""
    since: float | None = None
    """Start time of that process, in seconds since the epoch."""


@dataclass
class Job:
    """One job of a sweep. Two jobs with the same settings have the same folder."""

    number: int
    label: str
    """The swept settings, such as `lr=0.001 seed=1`; the key if there are none."""
    folder: Path
    record: Record
    slot: int = 0
    """Number of its slot among the jobs that run at once, from 0."""
    twins: "list[Job]" = field(default_factory=list)
    """Other jobs with the same settings, which get the same result."""
    process: JobProcess | None = None
    started: float = 0.0
    """When the process started, from `time.monotonic`."""

    @property
    def log(self) -> Path:
        """The file with the job's output."""
        return self.folder / JOB_LOG

    def load(self) -> None:
        """Load the record of an earlier sweep, or write a new one."""
        earlier = read_record(self.folder)
        if earlier is not None:
            self.record = replace(earlier, overrides=self.record.overrides, swept=self.record.swept)
        if not self.record.starts:
            self.save()

    def save(self) -> None:
        """Write job.json."""
        self.folder.mkdir(parents=True, exist_ok=True)
        write_json(self.folder / JOB, asdict(self.record))

    def start(
        self, command: Sequence[str], environment: dict[str, str], slot: int, forks: ForkServer | None = None
    ) -> None:
        """Start the process in its own process group, so that Ctrl-C in a terminal does not reach it.

        Args:
            command: program and arguments.
            environment: all environment variables.
            slot: number of the job's slot.
            forks: forks the process, if it can; None starts a new one.
        """
        self.slot, self.record.starts = slot, self.record.starts + 1
        self.record.state, self.record.exit_code, self.record.since = State.running, None, time.time()
        with self.log.open("ab") as log:
            now = datetime.now().isoformat(sep=" ", timespec="seconds")
            log.write(f"--- start {self.record.starts}, {now}: {join(command)}\n".encode())
            log.flush()
            forked = forks.start(command, environment, self.log) if forks else None
            self.process = forked or subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=environment,
                process_group=0,
            )
        self.started, self.record.pid = time.monotonic(), self.process.pid
        self.save()

    @property
    def running_seconds(self) -> float:
        """Seconds since the process started."""
        return time.monotonic() - self.started

    def has_ended(self) -> bool:
        """Whether the process has ended."""
        return self.process is None or self.process.poll() is not None

    def send(self, number: signal.Signals) -> None:
        """Send a signal to the main process only. It stops its children itself: a data loader's worker that gets
        SIGTERM would look like a crash."""
        if self.process is not None:
            self.process.send_signal(number)  # does nothing after its end

    def end(self, stopping: bool) -> None:
        """Wait for the process, kill what it left running, and record how it ended.

        Args:
            stopping: whether the process was asked to stop.
        """
        assert self.process is not None
        code = self.process.wait()
        kill(self.process.pid)
        self.record.seconds = round(self.record.seconds + self.running_seconds, 3)
        self.record.exit_code, self.record.pid, self.record.since = code, None, None
        self.record.state = State.finished if code == 0 else State.interrupted if stopping else State.failed
        self.save()

    def objective(self) -> float | None:
        """Return the value that a sweeper optimises: None if the job failed, nan if its result has none."""
        if self.record.exit_code != 0:
            return None
        try:
            return float(json.loads((self.folder / METRICS).read_text(encoding="utf-8"))["objective"])
        except (OSError, ValueError, TypeError, KeyError):
            return math.nan


def read_record(folder: Path) -> Record | None:
    """Read job.json from the folder of a job; None if it is missing or invalid."""
    try:
        content = json.loads((folder / JOB).read_text(encoding="utf-8"))
        return Record(**content | {"state": State(content["state"])})
    except (OSError, ValueError, TypeError, KeyError):
        return None


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
    records = {path.parent: read_record(path.parent) for path in sweep.glob(f"*/{JOB}")}
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
        finished = (folder / METRICS).is_file()
        record.state, record.exit_code = (State.finished, 0) if finished else (State.interrupted, None)
        record.pid = record.since = None
        write_json(folder / JOB, asdict(record))


def _is_running(record: Record) -> bool:
    """Whether the process of a job still runs. Another process may have reused its id, so compare start times."""
    try:
        process = psutil.Process(record.pid)
        started = process.create_time()
        return abs(started - (record.since or 0)) < CLOCK_SECONDS and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False

"""The jobs of a sweep in its folder: what became of each, and who is at it.

    multirun/2026-01-31/12-00-00/
        lr-0.001_seed-1_3f9a2c1d45/     a job; the name ends with its key
            job.json                    its record, see `Record`
            job.log                     what it printed, start after start
        .jobs/3f9a2c1d45.lock           held by whoever runs the job

- A key is made from what a job computes, so the same job has the same folder in whatever sweep it is asked for again.
- The lock is `flock`, not a package's: the job's process inherits it. If the sweep is killed and the job lives on,
  the job is still held, and nobody starts it a second time.
"""

import fcntl
import json
import os
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from pathlib import Path

from qa_lm.run.atomic import write_json

RECORD, LOG, LOCKS = "job.json", "job.log", ".jobs"


class State(StrEnum):
    """How far a job is."""

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
    """What the sweeper asked for."""
    swept: list[str] = field(default_factory=list)
    """Keys of the overrides that differ from job to job."""
    state: State = State.left
    exit_code: int | None = None
    """Of the last process that ended; negative for the signal that killed it."""
    seconds: float = 0.0
    """All starts together."""
    starts: int = 0
    """Processes started."""


@dataclass(frozen=True)
class Job:
    """A point of the sweep."""

    number: int
    overrides: tuple[str, ...]
    label: str
    """What distinguishes it, for people: `lr=0.001 seed=1`."""
    name: str
    """The same, for a folder: `lr-0.001_seed-1`."""
    key: str
    swept: tuple[str, ...] = ()
    """Keys of the overrides that differ from job to job."""
    starts_before: int = 0
    """Starts that were over when it was asked for; a failure after more than these is no old one."""


class Claim:
    """A job that is ours alone.

    Args:
        folder: the job's folder; made if it is not there.
        lock: descriptor that holds the job's lock.
        job: the job.
    """

    def __init__(self, folder: Path, lock: int, job: Job) -> None:
        self.folder, self.lock = folder, lock
        folder.mkdir(exist_ok=True)
        self.record = read_record(folder) or Record(job.key)
        self.record.overrides, self.record.swept = list(job.overrides), list(job.swept)

    def save(self) -> None:
        """Write job.json: a reader sees the old record or the new one."""
        write_json(self.folder / RECORD, asdict(self.record))

    def release(self) -> None:
        """Let others have it; a process that inherited the lock keeps it."""
        os.close(self.lock)


def claim(sweep: Path, job: Job) -> Claim | None:
    """Hold the job; None if another process does.

    Args:
        sweep: the sweep folder.
        job: the job.
    """
    (sweep / LOCKS).mkdir(parents=True, exist_ok=True)
    lock = os.open(sweep / LOCKS / f"{job.key}.lock", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        return None
    return Claim(_folder(sweep, job), lock, job)


def enter(sweep: Path, job: Job) -> int:
    """Put a job that is asked for into the sweep folder if it is not there; returns its `starts_before`."""
    held = claim(sweep, job)
    if held is None:
        record = read_record(_folder(sweep, job))
        return max(0, record.starts - 1) if record else 0
    if not held.record.starts:
        held.save()
    held.release()
    return held.record.starts


def read_record(folder: Path) -> Record | None:
    """The record in a job's folder; None if there is none that can be read."""
    try:
        found = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        return Record(**found | {"state": State(found["state"])})
    except (OSError, ValueError, TypeError, KeyError):
        return None


def _folder(sweep: Path, job: Job) -> Path:
    # An earlier sweep, of other settings, may have named it otherwise.
    name = f"{job.name}_{job.key}" if job.name else job.key
    return next(iter(sorted(sweep.glob(f"*{job.key}"))), sweep / name)

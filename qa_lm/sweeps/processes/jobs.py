"""The jobs of a sweep, and their records in the sweep folder.

    multirun/2026-01-31/12-00-00/
        lr-0.001_seed-1_3f9a2c1d45/     a job; its name ends with the job's key
            job.json                    its record, see `Record`
            job.log                     its output, from all starts

The key is computed from the settings and data of a job, so that a later sweep with the same job finds its folder.
"""

import json
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from pathlib import Path

from qa_lm.run.atomic import write_json
from qa_lm.run.run_folder import JOB, JOB_LOG, METRICS

RECORD, LOG, RESULT = JOB, JOB_LOG, METRICS
"""`RESULT` exists when a job has finished. Its value `objective` is what a sweeper optimises."""


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
    """One job of a sweep.

    Two jobs with the same settings have the same folder.
    """

    number: int
    label: str
    """The swept settings, such as `lr=0.001 seed=1`; the key if there are none."""
    folder: Path
    record: Record

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
        write_json(self.folder / RECORD, asdict(self.record))


def read_record(folder: Path) -> Record | None:
    """Read job.json from the folder of a job; None if it is missing or invalid."""
    try:
        content = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        return Record(**content | {"state": State(content["state"])})
    except (OSError, ValueError, TypeError, KeyError):
        return None

"""What a sweep prints: a line for each job that is over, and a summary at the end."""

import signal
import sys
import time
from datetime import datetime, timedelta
from pathlib import Path

from qa_lm.reporting.wording import duration
from qa_lm.sweeps.processes.jobs import LOG, Job, State

MOST_SHOWN = 30
"""Jobs that a summary lists by name."""


class Progress:
    """Counts jobs and prints.

    Args:
        total: number of jobs of the sweep.
        jobs: how many run at once.
    """

    def __init__(self, total: int, jobs: int) -> None:
        self.total, self.jobs, self.done = total, jobs, 0
        self.failed: list[tuple[str, str]] = []
        """Label of each failed job, and why it failed."""
        self._seconds: list[float] = []

    def over(self, job: Job, skipped: bool, running: list[float]) -> None:
        """Count a job that is over, and print how it ended.

        Args:
            job: the job.
            skipped: whether its result was there already.
            running: start times of the running jobs, by `time.monotonic`.
        """
        record, log = job.record, job.folder / LOG
        if record.state is State.finished:
            self.done += 1
            how = "already finished" if skipped else f"finished in {duration(record.seconds)}"
            self._seconds += [record.seconds] if record.seconds else []
        else:
            code = record.exit_code or 0
            why = f"exit code {code}" if code >= 0 else f"killed by {signal.Signals(-code).name}"
            self.failed.append((job.label, f"{why}: {last_words(log)} ({log})"))
            how = f"failed, {why}"
        print(f"{job.label}: {how}; {self.counts(len(running))}{self._expected_end(running)}", flush=True)

    def counts(self, running: int = 0) -> str:
        """The numbers of jobs by state."""
        failed = len(self.failed)
        left = self.total - self.done - failed - running
        return f"done {self.done}, running {running}, failed {failed}, left {left} of {self.total}"

    def _expected_end(self, running: list[float]) -> str:
        """When the sweep ends if its jobs take as long as those that have finished."""
        left = self.total - self.done - len(self.failed) - len(running)
        if not self._seconds or not (left or running):
            return ""
        mean = sum(self._seconds) / len(self._seconds)
        rest = sum(max(0.0, mean - (time.monotonic() - since)) for since in running) + mean * left
        at = datetime.now() + timedelta(seconds=rest / self.jobs)
        day = f" on {at:%Y-%m-%d}" if at.date() != datetime.now().date() else ""
        return f", expected end {at:%H:%M:%S}{day}"

    def stopping(self, signal_name: str, running: int) -> None:
        """Print that running jobs have been asked to stop."""
        print(f"{signal_name}: waiting for {running} running to save and stop; repeat to kill them", flush=True)


def print_summary(title: str, jobs: list[tuple[str, str]], then: str) -> None:
    """Print a list of jobs to stderr.

    Args:
        title: the first line.
        jobs: label of each job, and what to say of it.
        then: the last line, such as the command that resumes the sweep.
    """
    lines = [title, *(f"  {label}: {how}" for label, how in jobs[:MOST_SHOWN])]
    if len(jobs) > MOST_SHOWN:
        lines.append(f"  and {len(jobs) - MOST_SHOWN} more")
    print("\n".join([*lines, then]), file=sys.stderr, flush=True)


def last_words(log: Path) -> str:
    """The last line that the last start of a job printed, at most 200 characters."""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - 10_000))
        lines = file.read().decode(errors="replace").splitlines()
    # Hydra's advice below a traceback does not say what happened.
    printed = [line.strip() for line in lines if line.strip() and "HYDRA_FULL_ERROR" not in line]
    return printed[-1][:200] if printed and not printed[-1].startswith("--- start ") else "no output"

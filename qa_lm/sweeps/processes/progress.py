"""Print the progress of a sweep: a line for each job that has ended, and a summary at the end."""

import signal
import sys
from datetime import datetime, timedelta
from pathlib import Path

from qa_lm.reporting.wording import duration
from qa_lm.sweeps.processes.jobs import Job, State

MAX_SHOWN = 30
"""Maximum number of jobs that a summary lists."""


class Progress:
    """Counts jobs and prints their progress.

    Args:
        total: number of jobs of the sweep.
        jobs: number of jobs that run at once.
    """

    def __init__(self, total: int, jobs: int) -> None:
        self.total, self.jobs, self.done = total, jobs, 0
        self.failed: list[tuple[str, str]] = []
        """Label of each failed job, and the reason."""
        self._seconds: list[float] = []

    def job_ended(self, job: Job, skipped: bool, running: list[float]) -> None:
        """Count a job that has ended, and print how it ended.

        Args:
            job: the job.
            skipped: whether its result existed already.
            running: seconds since the start of each running job.
        """
        record = job.record
        if record.state is State.finished:
            self.done += 1
            how = "already finished" if skipped else f"finished in {duration(record.seconds)}"
            self._seconds += [record.seconds] if record.seconds else []
        else:
            code = record.exit_code or 0
            why = f"exit code {code}" if code >= 0 else f"killed by {signal.Signals(-code).name}"
            self.failed.append((job.label, f"{why}: {last_line(job.log)} ({job.log})"))
            how = f"failed, {why}"
        print(f"{job.label}: {how}; {self.counts(len(running))}{self._estimated_end(running)}", flush=True)

    def counts(self, running: int = 0) -> str:
        """Format the numbers of jobs by state."""
        failed = len(self.failed)
        remaining = self.total - self.done - failed - running
        return f"done {self.done}, running {running}, failed {failed}, remaining {remaining} of {self.total}"

    def _estimated_end(self, running: list[float]) -> str:
        """Estimate when the sweep ends, from the mean time of the finished jobs."""
        remaining = self.total - self.done - len(self.failed) - len(running)
        if not self._seconds or not (remaining or running):
            return ""
        mean = sum(self._seconds) / len(self._seconds)
        seconds = sum(max(0.0, mean - each) for each in running) + mean * remaining
        end = datetime.now() + timedelta(seconds=seconds / self.jobs)
        day = f" on {end:%Y-%m-%d}" if end.date() != datetime.now().date() else ""
        return f", estimated end {end:%H:%M:%S}{day}"

    def stopping(self, signal_name: str, running: int) -> None:
        """Print that running jobs have been asked to stop."""
        print(f"{signal_name}: waiting for {running} running jobs to save and stop; repeat to kill them", flush=True)


def print_summary(title: str, jobs: list[tuple[str, str]], last: str) -> None:
    """Print a list of jobs to stderr.

    Args:
        title: the first line.
        jobs: label of each job, and its state.
        last: the last line, such as the command that resumes the sweep.
    """
    lines = [title, *(f"  {label}: {how}" for label, how in jobs[:MAX_SHOWN])]
    if len(jobs) > MAX_SHOWN:
        lines.append(f"  and {len(jobs) - MAX_SHOWN} more")
    print("\n".join([*lines, last]), file=sys.stderr, flush=True)


def last_line(log: Path) -> str:
    """Return the last line that the last start of a job printed, at most 200 characters."""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - 10_000))
        lines = file.read().decode(errors="replace").splitlines()
    # Skip Hydra's advice below a traceback, which does not say what happened.
    printed = [line.strip() for line in lines if line.strip() and "HYDRA_FULL_ERROR" not in line]
    return printed[-1][:200] if printed and not printed[-1].startswith("--- start ") else "no output"

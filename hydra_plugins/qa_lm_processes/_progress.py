"""How a sweep goes, for people: a line for each job that is over, and on a terminal one that is kept up to date."""

import signal
import sys
import time
from datetime import datetime, timedelta
from pathlib import Path

from hydra_plugins.qa_lm_processes._jobs import LOG, Claim, Job, State

REFRESH_SECONDS = 1.0


class Progress:
    """Counts jobs and prints.

    Args:
        total: jobs of the sweep.
        jobs: how many run at once.
    """

    def __init__(self, total: int, jobs: int) -> None:
        self.total, self.jobs = total, jobs
        self.done = self.skipped = 0
        self.failed: list[tuple[Job, str]] = []
        """Failed jobs, with the exit code and the last words."""
        self._seconds: list[float] = []
        self._shown = 0.0
        self._live = sys.stdout.isatty()

    def over(self, job: Job, held: Claim, skipped: bool, running: list[float], elsewhere: int) -> None:
        """Count a job that is over, and say how it went.

        Args:
            job: the job.
            held: its record and folder.
            skipped: whether it was over before.
            running: since when other jobs run.
            elsewhere: jobs that other sweeps run.
        """
        record = held.record
        if record.state is State.finished:
            self.done += 1
            self.skipped += skipped
            how = "was finished" if skipped else f"finished in {_duration(record.seconds)}"
            if record.seconds:
                self._seconds.append(record.seconds)
        else:
            log = held.folder / LOG
            self.failed.append((job, f"{_ending(record.exit_code)}: {last_words(log)} ({log})"))
            how = f"failed, {_ending(record.exit_code)}"
        self._print(f"{job.label or job.key}: {how}; {self.line(running, elsewhere)}")
        self._shown = 0.0

    def counts(self, running: int = 0, elsewhere: int = 0) -> str:
        """Done, running, failed, left."""
        others = [f"run by others {elsewhere}"] if elsewhere else []
        left = f"left {self._left(running, elsewhere)} of {self.total}"
        return ", ".join([f"done {self.done}", f"running {running}", f"failed {len(self.failed)}", *others, left])

    def line(self, running: list[float], elsewhere: int) -> str:
        """The counts, and when the sweep will end if jobs go on to take as long as those that finished."""
        counts, left = self.counts(len(running), elsewhere), self._left(len(running), elsewhere)
        if not self._seconds or not (left or running):
            return counts
        mean = sum(self._seconds) / len(self._seconds)
        rest = sum(max(0.0, mean - (time.monotonic() - since)) for since in running) + mean * left
        at = datetime.now() + timedelta(seconds=rest / self.jobs)
        return f"{counts}, expected end {at:%H:%M:%S}" + (
            f" on {at:%Y-%m-%d}" if at.date() != datetime.now().date() else ""
        )

    def _left(self, running: int, elsewhere: int) -> int:
        return self.total - self.done - len(self.failed) - running - elsewhere

    def show(self, running: list[float], elsewhere: int) -> None:
        """Bring the line on a terminal up to date."""
        if self._live and time.monotonic() - self._shown > REFRESH_SECONDS:
            self._shown = time.monotonic()
            print(f"\r\x1b[K{self.line(running, elsewhere)}", end="", flush=True)

    def stopping(self, signal_name: str, running: int) -> None:
        """Say that running jobs have been told to stop."""
        self._print(f"{signal_name}: waiting for {running} running to save and stop; once more ends them at once")

    def close(self) -> None:
        """Take the line away."""
        if self._live:
            print("\r\x1b[K", end="", flush=True)

    def _print(self, line: str) -> None:
        print(f"\r\x1b[K{line}" if self._live else line, flush=True)


def last_words(log: Path) -> str:
    """The last line of a job's log that says something, at most 200 characters."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - 10_000))
            lines = file.read().decode(errors="replace").splitlines()
    except OSError:
        return ""
    # What Hydra adds below a traceback says nothing of this one.
    said = [line.strip() for line in lines if line.strip() and "HYDRA_FULL_ERROR" not in line]
    return said[-1][:200] if said and not said[-1].startswith("--- start ") else "it said nothing"


def _ending(exit_code: int | None) -> str:
    if exit_code is None or exit_code >= 0:
        return f"exit code {exit_code}"
    return f"killed by {signal.Signals(-exit_code).name}"


def _duration(seconds: float) -> str:
    whole = round(seconds)
    if whole < 100:
        return f"{seconds:.1f} s"
    return f"{whole // 60} min" if whole < 6000 else f"{whole // 3600} h {whole % 3600 // 60} min"

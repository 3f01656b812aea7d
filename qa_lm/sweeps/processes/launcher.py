"""The launcher as Hydra calls it: `python scripts/train.py -m KEY=A,B hydra.launcher.jobs=2`."""

import json
import math
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import ClassVar

from hydra.core.utils import JobReturn, JobStatus
from hydra.errors import HydraException
from hydra.experimental.callback import Callback
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from qa_lm.sweeps.lock import hold_sweep
from qa_lm.sweeps.processes.factory import JobFactory, Script, resume_command
from qa_lm.sweeps.processes.jobs import RESULT, Job
from qa_lm.sweeps.processes.pool import Pool
from qa_lm.sweeps.processes.process import cores, stop_leftovers
from qa_lm.sweeps.processes.progress import Progress, print_summary


class ProcessLauncher(Launcher, Callback):
    """Runs each job of a sweep in a process of its own: the script again, with the overrides of the job.

    Args:
        jobs, resume: see `ProcessLauncherConf`.
    """

    script: ClassVar[Script]

    def __init__(self, jobs: int, resume: str | None) -> None:
        self.jobs, self.resume = jobs, resume
        self._failed: list[tuple[str, str]] = []

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Take what a sweep needs; the processes of the jobs run the task itself."""
        if self.jobs < 1:
            raise HydraException(f"hydra.launcher.jobs={self.jobs}: must be at least 1")
        self.sweep = Path(str(config.hydra.sweep.dir)).absolute()
        self._factory = JobFactory(hydra_context, config, self.sweep, self.script, self.resume)
        # Hydra calls `on_multirun_end` after the sweeper's last job.
        hydra_context.callbacks.callbacks.append(self)

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Run jobs; all are checked before the first starts.

        Args:
            job_overrides: for each job its overrides.
            initial_job_idx: number of the first job.

        Returns:
            For each job its objective; nan if it failed.
        """
        jobs = [self._factory.job(each, initial_job_idx + place) for place, each in enumerate(job_overrides)]
        hold_sweep(self.sweep)
        for job in jobs:
            job.load()
        rest, objectives = iter(jobs), dict[int, float | None]()
        self._run(rest, objectives.__setitem__, len(jobs), not_started=rest)
        values = [math.nan if (value := objectives[job.number]) is None else value for job in jobs]
        return [
            JobReturn(overrides=job.record.overrides, status=JobStatus.COMPLETED, _return_value=value)
            for job, value in zip(jobs, values, strict=True)
        ]

    def launch_each(
        self, asked: Iterator[tuple[int, list[str]]], tell: Callable[[int, float | None], None], total: int
    ) -> None:
        """Run jobs that a sweeper chooses one by one, each when there is room for it.

        A job that cannot be composed has failed, unless it is the first: then the search space is wrong.

        Args:
            asked: number and overrides of each job.
            tell: gets the number of a job that is over, and its objective; None if the job failed.
            total: how many jobs there will be.
        """

        def jobs() -> Iterator[Job]:
            for place, (number, overrides) in enumerate(asked):
                try:
                    job = self._factory.job(overrides, number)
                except Exception as error:
                    if place == 0:
                        raise
                    print(f"{' '.join(overrides)}: {error}", file=sys.stderr, flush=True)
                    tell(number, None)
                else:
                    yield job

        hold_sweep(self.sweep)
        self._run(jobs(), tell, total, not_started=())

    def on_multirun_end(self, config: DictConfig, **kwargs: object) -> None:
        """Let the script conclude; the number of failed jobs is the exit code."""
        if self.script.ended:
            self.script.ended(self.sweep)
        if self._failed:
            again = f"to try them again: {resume_command(self.sweep)}"
            print_summary(f"jobs that failed: {len(self._failed)}", self._failed, again)
            raise SystemExit(min(len(self._failed), 100))

    def _run(
        self,
        jobs: Iterator[Job],
        tell: Callable[[int, float | None], None],
        total: int,
        not_started: Iterable[Job],
    ) -> None:
        """Run jobs; if a signal stops them, print what is left and end."""
        share = f" with {max(1, cores() // self.jobs)} of {cores()} cores each" if self.jobs > 1 else ""
        print(f"sweep: {total} jobs, {self.jobs} at once{share}, in {self.sweep}", flush=True)
        stop_leftovers(self.sweep)
        progress = Progress(total, self.jobs)
        pool = Pool(self.jobs, self._factory.command, progress)
        pool.run(jobs, lambda job: tell(job.number, _objective(job)))
        self._failed += progress.failed
        if pool.stopped_by:
            left = [(job.label, f"interrupted after {job.record.seconds:,.0f} s") for job in pool.interrupted]
            left += [(job.label, "not started") for job in not_started]
            print_summary(f"stopped: {progress.counts()}", left, f"to resume: {resume_command(self.sweep)}")
            raise SystemExit(128 + pool.stopped_by)


def _objective(job: Job) -> float | None:
    """The objective of a job; None if the job failed, nan if its result has none."""
    if job.record.exit_code != 0:
        return None
    try:
        return float(json.loads((job.folder / RESULT).read_text(encoding="utf-8"))["objective"])
    except (OSError, ValueError, TypeError, KeyError):
        return math.nan

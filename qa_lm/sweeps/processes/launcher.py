"""The launcher that Hydra calls: `python scripts/train.py -m KEY=A,B hydra.launcher.jobs=2`."""

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

from qa_lm.sweeps.lock import lock_sweep
from qa_lm.sweeps.processes.factory import JobFactory, Script, resume_command
from qa_lm.sweeps.processes.forks import ForkServer
from qa_lm.sweeps.processes.jobs import Job, stop_leftovers
from qa_lm.sweeps.processes.pool import Pool, cores
from qa_lm.sweeps.processes.progress import Progress, print_summary


class ProcessLauncher(Launcher, Callback):
    """A launcher that runs each job of a sweep in its own process: the same script with the overrides of the job.

    Args:
        jobs, resume, fork: see `ProcessLauncherConf`.
    """

    script: ClassVar[Script]

    def __init__(self, jobs: int, resume: str | None, fork: bool = True) -> None:
        self.jobs, self.resume, self.fork = jobs, resume, fork
        self._failed: list[tuple[str, str]] = []

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Store what a sweep needs; Hydra calls it. The processes of the jobs run the task."""
        if self.jobs < 1:
            raise HydraException(f"hydra.launcher.jobs={self.jobs}: must be at least 1")
        self.sweep = Path(str(config.hydra.sweep.dir)).absolute()
        self._factory = JobFactory(hydra_context, config, self.sweep, self.script, self.resume)
        # Hydra calls `on_multirun_end` after the sweeper's last job.
        hydra_context.callbacks.callbacks.append(self)

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Run jobs. All are checked before the first one starts.

        Args:
            job_overrides: overrides of each job.
            initial_job_idx: number of the first job.

        Returns:
            The objective of each job; nan if it failed.
        """
        jobs = [self._factory.job(each, initial_job_idx + index) for index, each in enumerate(job_overrides)]
        lock_sweep(self.sweep)
        for job in jobs:
            job.load()
        remaining, objectives = iter(jobs), dict[int, float | None]()
        self._run(remaining, objectives.__setitem__, len(jobs), not_started=remaining)
        values = [math.nan if (value := objectives[job.number]) is None else value for job in jobs]
        return [
            JobReturn(overrides=job.record.overrides, status=JobStatus.COMPLETED, _return_value=value)
            for job, value in zip(jobs, values, strict=True)
        ]

    def launch_each(
        self, requests: Iterator[tuple[int, list[str]]], on_end: Callable[[int, float | None], None], total: int
    ) -> None:
        """Run jobs that a sweeper chooses one by one, each when a slot is free.

        A job whose configuration is invalid counts as failed, unless it is the first: then the search space is wrong.

        Args:
            requests: number and overrides of each job.
            on_end: called with the number of each job that has ended and its objective, None if it failed.
            total: number of jobs.
        """

        def jobs() -> Iterator[Job]:
            for index, (number, overrides) in enumerate(requests):
                try:
                    job = self._factory.job(overrides, number)
                except Exception as error:
                    if index == 0:
                        raise
                    print(f"{' '.join(overrides)}: {error}", file=sys.stderr, flush=True)
                    on_end(number, None)
                else:
                    yield job

        lock_sweep(self.sweep)
        self._run(jobs(), on_end, total, not_started=())

    def on_multirun_end(self, config: DictConfig, **kwargs: object) -> None:
        """Call the script's `ended`, and exit with the number of failed jobs; Hydra calls it."""
        if self.script.ended:
            self.script.ended(self.sweep)
        if self._failed:
            retry = f"to retry them: {resume_command(self.sweep)}"
            print_summary(f"jobs that failed: {len(self._failed)}", self._failed, retry)
            raise SystemExit(min(len(self._failed), 100))

    def _run(
        self,
        jobs: Iterator[Job],
        on_end: Callable[[int, float | None], None],
        total: int,
        not_started: Iterable[Job],
    ) -> None:
        """Run jobs. If a signal stops them, print the remaining ones and exit."""
        share = f" with {max(1, cores() // self.jobs)} of {cores()} cores each" if self.jobs > 1 else ""
        print(f"sweep: {total} jobs, {self.jobs} at once{share}, in {self.sweep}", flush=True)
        stop_leftovers(self.sweep)
        progress = Progress(total, self.jobs)
        fork_server = self._fork_server if self.fork and total > 1 and self._factory.can_fork() else None
        pool = Pool(
            self.jobs, self._factory.command, progress, lambda job: on_end(job.number, job.objective()), fork_server
        )
        pool.run(jobs)
        self._failed += progress.failed
        if pool.stopped_by:
            remaining = [(job.label, f"interrupted after {job.record.seconds:,.0f} s") for job in pool.interrupted]
            waiting = [pool.waiting] if pool.waiting else []
            remaining += [(job.label, "not started") for job in (*waiting, *not_started)]
            print_summary(f"stopped: {progress.counts()}", remaining, f"to resume: {resume_command(self.sweep)}")
            raise SystemExit(128 + pool.stopped_by)

    def _fork_server(self, environment: dict[str, str]) -> ForkServer:
        return ForkServer(self._factory.program(), self.script.modules, environment)

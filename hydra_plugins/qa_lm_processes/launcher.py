"""The launcher as Hydra sees it, and its settings: `python scripts/train.py -m KEY=A,B hydra.launcher.jobs=2`.

What is at work is imported when a sweep begins: Hydra imports this file whenever any script of Hydra's starts.
"""

import json
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hydra.core.config_store import ConfigStore
from hydra.core.utils import JobReturn, JobStatus
from hydra.errors import HydraException
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

if TYPE_CHECKING:
    from hydra_plugins.qa_lm_processes._jobs import Claim, Job
    from hydra_plugins.qa_lm_processes._points import Points

RESULT = "metrics.json"
"""File of a run folder that is there once the job is finished; its key `objective` is what a sweeper optimises."""
MOST_SHOWN = 30
"""Jobs listed by name when there are more."""


@dataclass
class ProcessLauncherConf:
    """The settings `hydra.launcher.*`."""

    _target_: str = "hydra_plugins.qa_lm_processes.launcher.ProcessLauncher"
    jobs: int = 1
    """Jobs at once; cores and GPUs are shared out among them."""
    resume: str | None = "resume=auto"
    """Override that makes the script go on with what is in its run folder; null for a script that has none."""


class ProcessLauncher(Launcher):
    """Runs every job of a sweep in a process of its own: the script again, with the job's overrides.

    The script may have a function `job_identity`. It is given each job's composed configuration before any job starts,
    raises if that cannot be run, and returns a text that is equal for equal jobs. Without it the resolved configuration
    is that text. A function `sweep_ended` of the script is given the sweep folder once all jobs are over. A list
    `program` is what follows `python` to start a job; without it that is what was started itself.

    Args:
        jobs, resume: see `ProcessLauncherConf`.
    """

    def __init__(self, jobs: int, resume: str | None) -> None:
        self.jobs, self.resume = jobs, resume
        self._failed: list[tuple[Job, str]] = []

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Take what a sweep needs; the task itself is run by the processes."""
        if self.jobs < 1:
            raise HydraException(f"hydra.launcher.jobs={self.jobs}: must be at least 1")
        self.context, self.config = hydra_context, config
        script = sys.modules[task_function.__module__]
        self.identity, self.ended, self.program = (
            getattr(script, name, None) for name in ("job_identity", "sweep_ended", "program")
        )
        self.sweep = Path(str(config.hydra.sweep.dir)).absolute()
        # Hydra calls this when the sweeper has had its last job; an exception from a job would end the sweep.
        hydra_context.callbacks.callbacks.append(self)

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Run jobs; all are checked before the first is started.

        Args:
            job_overrides: for each job its overrides.
            initial_job_idx: the first one's number.

        Returns:
            for each job its objective; nan for one that failed.
        """
        points = self._points()
        jobs = [points.job(each, initial_job_idx + number) for number, each in enumerate(job_overrides)]
        jobs = [points.enter(job) for job in jobs]
        found: dict[int, float] = {}
        rest = iter(jobs)

        def tell(job: "Job", held: "Claim") -> None:
            found[job.number] = self._objective(held)

        self._run(points, lambda: next(rest, None), tell, len(jobs), rest)
        return [
            JobReturn(overrides=job.overrides, status=JobStatus.COMPLETED, _return_value=found[job.number])
            for job in jobs
        ]

    def launch_each(
        self, ask: Callable[[], list[str] | None], tell: Callable[[int, float | None], None], total: int
    ) -> None:
        """Run jobs that a sweeper asks for one by one, whenever there is room for one.

        A job that cannot be composed has failed, unless it is the first: then the search space is wrong.

        Args:
            ask: the next job's overrides; None for no more.
            tell: number of a job that is over, counted from 0 in the order of asking, and its objective; None for a job
                that failed.
            total: how many jobs there will be.
        """
        points, count = self._points(), 0

        def next_job() -> "Job | None":
            nonlocal count
            while (overrides := ask()) is not None:
                count += 1
                try:
                    return points.enter(points.job(overrides, count - 1))
                except Exception as error:
                    if count == 1:
                        raise
                    print(f"{' '.join(overrides)}: {error}", file=sys.stderr, flush=True)
                    tell(count - 1, None)
            return None

        def over(job: "Job", held: "Claim") -> None:
            failed = held.record.exit_code != 0
            tell(job.number, None if failed else self._objective(held))

        self._run(points, next_job, over, total, iter(()))

    def on_multirun_end(self, config: DictConfig, **more: object) -> None:
        """Let the script conclude; end with the number of failed jobs as exit code."""
        if self.ended:
            self.ended(self.sweep)
        if not self._failed:
            return
        from hydra_plugins.qa_lm_processes._points import go_on_command

        print(f"jobs that failed: {len(self._failed)}", file=sys.stderr)
        for job, why in self._failed[:MOST_SHOWN]:
            print(f"  {job.label or job.key}: {why}", file=sys.stderr)
        print(f"to try them again: {go_on_command(self.sweep)}", file=sys.stderr, flush=True)
        raise SystemExit(min(len(self._failed), 100))

    def __getattr__(self, name: str) -> object:
        """Hydra's other callbacks: nothing happens."""
        if name in ("on_multirun_start", "on_run_start", "on_run_end", "on_job_start", "on_job_end"):
            return lambda **arguments: None
        raise AttributeError(name)

    def _points(self) -> "Points":
        from hydra_plugins.qa_lm_processes._points import Points

        return Points(self.context, self.config, self.sweep, self.identity, self.program)

    def _run(
        self,
        points: "Points",
        ask: "Callable[[], Job | None]",
        tell: "Callable[[Job, Claim], None]",
        total: int,
        rest: "Iterator[Job]",
    ) -> None:
        from hydra_plugins.qa_lm_processes._pool import Pool
        from hydra_plugins.qa_lm_processes._process import cores
        from hydra_plugins.qa_lm_processes._progress import Progress

        share = f" with {max(1, cores() // self.jobs)} of {cores()} cores each" if self.jobs > 1 else ""
        print(f"sweep: {total} jobs, {self.jobs} at once{share}, in {self.sweep}", flush=True)
        progress = Progress(total, self.jobs)
        pool = Pool(
            self.sweep, self.jobs, lambda job, folder: points.command(job, folder, self.resume), RESULT, progress
        )
        over = pool.run(ask, tell)
        self._failed += progress.failed
        if not over:
            self._say_what_is_left([*pool.unfinished, *((job, "not begun") for job in rest)], progress.counts())
            raise SystemExit(pool.stopping.exit_code)

    def _say_what_is_left(self, left: "list[tuple[Job, str]]", line: str) -> None:
        from hydra_plugins.qa_lm_processes._points import go_on_command

        print(f"stopped: {line}", file=sys.stderr)
        for job, how in left[:MOST_SHOWN]:
            print(f"  {job.label or job.key}: {how}", file=sys.stderr)
        if len(left) > MOST_SHOWN:
            print(f"  and {len(left) - MOST_SHOWN} more", file=sys.stderr)
        print(f"to resume: {go_on_command(self.sweep)}", file=sys.stderr, flush=True)

    def _objective(self, held: "Claim") -> float:
        """What the job's result file says; nan for none."""
        if held.record.exit_code != 0:
            return math.nan
        try:
            return float(json.loads((held.folder / RESULT).read_text(encoding="utf-8"))["objective"])
        except (OSError, ValueError, TypeError, KeyError):
            return math.nan


ConfigStore.instance().store(group="hydra/launcher", name="processes", node=ProcessLauncherConf, provider="qa_lm")

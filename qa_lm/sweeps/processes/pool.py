"""Run jobs, several at once, until all have ended or the user stops the sweep.

A single thread polls the processes twenty times a second, so no state needs a lock.
"""

import contextlib
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import FrameType

from qa_lm.sweeps.processes.forks import ForkServer
from qa_lm.sweeps.processes.jobs import Job, State, kill
from qa_lm.sweeps.processes.progress import Progress

POLL_SECONDS = 0.05
STOPS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
SAME_REQUEST_SECONDS = 0.5
"""Signals closer together count once: the shell and the system both send SIGHUP when a terminal is closed."""
THREADS = ("OMP_NUM_THREADS", "RAYON_NUM_THREADS")
"""Environment variables that limit the threads of torch and of tokenizers."""
GPUS = Path("/proc/driver/nvidia/gpus")


class Pool:
    """A pool of jobs that run at once.

    Args:
        jobs: maximum number of jobs that run at once.
        command: maps a job to the command line that runs it.
        progress: prints the progress.
        on_end: called with each job that has finished or failed.
        fork_server: starts the process that forks the jobs, with the environment of a job; None for new processes.
    """

    def __init__(
        self,
        jobs: int,
        command: Callable[[Job], Sequence[str]],
        progress: Progress,
        on_end: Callable[[Job], None],
        fork_server: Callable[[dict[str, str]], ForkServer] | None = None,
    ) -> None:
        self.jobs, self.command, self.progress, self.on_end = jobs, command, progress, on_end
        self._fork_server = fork_server
        self._forks: ForkServer | None = None
        self._has_noted = False
        self.waiting: Job | None = None
        """A job that was taken but not started."""
        self.running: list[Job] = []
        self.interrupted: list[Job] = []
        self.stopped_by: signal.Signals | None = None
        """Signal sent to the jobs after the first signal to this process: SIGINT after Ctrl-C, otherwise SIGTERM."""
        self._requests, self._last_request = 0, float("-inf")
        self._ended_keys: set[str] = set()

    def run(self, jobs: Iterator[Job]) -> None:
        """Run jobs until all have ended, or until a signal has stopped the running ones.

        Args:
            jobs: iterator over jobs; the next one is taken when a slot is free.
        """
        with self._catch_signals():
            try:
                self._run(jobs)
            finally:  # after an error, end the jobs and record how they ended
                for job in self.running:
                    job.send(signal.SIGTERM)
                for job in self.running:
                    job.end(stopping=True)
                if self._forks:
                    self._forks.close()

    def _run(self, jobs: Iterator[Job]) -> None:
        more, handled = True, 0
        while more or self.running:
            for job in [job for job in self.running if job.has_ended()]:
                self._ended(job)
            if self._requests > handled:
                more = False
                self._stop(kill_jobs=self._requests > 1)
                handled = self._requests
            while more and len(self.running) < self.jobs and (not self.waiting or self._is_settled()):
                following = self.waiting or next(jobs, None)
                self.waiting = None
                if following is None:
                    more = False
                elif not self._start(following):
                    self.waiting = following
                    break
            time.sleep(POLL_SECONDS)

    def _start(self, job: Job) -> bool:
        """Start a job, unless it has ended already or a running job has the same settings.

        Returns:
            False if the job must wait, because the process that forks it still imports.
        """
        for other in self.running:
            if other.folder == job.folder:
                other.twins.append(job)
                return True
        job.load()
        if job.record.state is State.finished or job.record.key in self._ended_keys:
            self._report(job, skipped=True)
            return True
        if not self._is_settled():
            return False
        slot = min(set(range(self.jobs)) - {each.slot for each in self.running})
        job.start(self.command(job), job_environment(self.jobs, slot), slot, self._forks)
        self.running.append(job)
        if self._forks and self._forks.refusal and not self._has_noted:
            self._has_noted = True
            print(f"note: jobs start as new processes: {self._forks.refusal}", file=sys.stderr, flush=True)
        return True

    def _is_settled(self) -> bool:
        """Whether it is known how jobs start. The process that forks them is started for the first one."""
        if self._fork_server and not self._forks:
            self._forks = self._fork_server(job_environment(self.jobs, 0))
        return self._forks is None or self._forks.is_settled()

    def _ended(self, job: Job) -> None:
        self.running.remove(job)
        job.end(stopping=self.stopped_by is not None)
        if job.record.state is State.interrupted:
            self.interrupted += [job, *job.twins]
            return
        self._report(job, skipped=False)
        for twin in job.twins:
            twin.load()
            self._report(twin, skipped=True)

    def _report(self, job: Job, skipped: bool) -> None:
        self._ended_keys.add(job.record.key)
        self.progress.job_ended(job, skipped, [each.running_seconds for each in self.running])
        self.on_end(job)

    def _stop(self, kill_jobs: bool) -> None:
        if self.stopped_by and not kill_jobs:
            self.progress.stopping(self.stopped_by.name, len(self.running))
        for job in self.running:
            if kill_jobs and job.process:
                kill(job.process.pid)
            elif self.stopped_by:
                job.send(self.stopped_by)

    @contextlib.contextmanager
    def _catch_signals(self) -> Iterator[None]:
        """Count signals instead of ending the process. Ignored signals (SIGHUP under nohup) stay ignored."""
        caught = [each for each in STOPS if signal.getsignal(each) is not signal.SIG_IGN]
        before = {each: signal.signal(each, self._count_signal) for each in caught}
        try:
            yield
        finally:
            for each, handler in before.items():
                signal.signal(each, handler)

    def _count_signal(self, number: int, frame: FrameType | None) -> None:
        self.stopped_by = self.stopped_by or (signal.SIGINT if number == signal.SIGINT else signal.SIGTERM)
        if time.monotonic() - self._last_request > SAME_REQUEST_SECONDS:
            self._requests += 1
        self._last_request = time.monotonic()


def cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def job_environment(jobs: int, slot: int) -> dict[str, str]:
    """Return the environment variables of a job, with its share of cores and GPUs; a single job gets all of them.

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

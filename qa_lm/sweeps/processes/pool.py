"""Run jobs, several at once, until all have ended or the user stops the sweep.

A single thread polls the processes twenty times a second, so no state needs a lock.
"""

import contextlib
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from types import FrameType

from qa_lm.sweeps.processes.jobs import Job, State
from qa_lm.sweeps.processes.process import RunningJob, job_environment, kill, start
from qa_lm.sweeps.processes.progress import Progress

POLL_SECONDS = 0.05
STOPS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
SAME_REQUEST_SECONDS = 0.5
"""Signals closer together count once: the shell and the system both send SIGHUP when a terminal is closed."""


class Pool:
    """A pool of jobs that run at once.

    Args:
        jobs: maximum number of jobs that run at once.
        command: maps a job to the command line that runs it.
        progress: prints the progress.
    """

    def __init__(self, jobs: int, command: Callable[[Job], Sequence[str]], progress: Progress) -> None:
        self.jobs, self.command, self.progress = jobs, command, progress
        self.running: list[RunningJob] = []
        self.interrupted: list[Job] = []
        self.stopped_by: signal.Signals | None = None
        """Signal sent to the jobs after the first signal to this process: SIGINT after Ctrl-C, otherwise SIGTERM."""
        self._requests, self._last_request = 0, float("-inf")
        self._ended_keys: set[str] = set()

    def run(self, jobs: Iterator[Job], on_end: Callable[[Job], None]) -> None:
        """Run jobs until all have ended, or until a signal has stopped the running ones.

        Args:
            jobs: iterator over jobs; the next one is taken when a slot is free.
            on_end: called with each job that has finished or failed.
        """
        with self._catch_signals():
            try:
                self._run(jobs, on_end)
            finally:  # after an error, end the jobs and record how they ended
                for each in self.running:
                    each.send(signal.SIGTERM)
                for each in self.running:
                    each.process.wait()
                    each.end(stopping=True)

    def _run(self, jobs: Iterator[Job], on_end: Callable[[Job], None]) -> None:
        more, handled = True, 0
        while more or self.running:
            for each in [each for each in self.running if each.process.poll() is not None]:
                self._ended(each, on_end)
            if self._requests > handled:
                more = False
                self._stop(kill_jobs=self._requests > 1)
                handled = self._requests
            while more and len(self.running) < self.jobs:
                job = next(jobs, None)
                if job is None:
                    more = False
                else:
                    self._start(job, on_end)
            time.sleep(POLL_SECONDS)

    def _start(self, job: Job, on_end: Callable[[Job], None]) -> None:
        """Start a job, unless it has ended already or a running job has the same settings."""
        for each in self.running:
            if each.job.folder == job.folder:
                each.twins.append(job)
                return
        job.load()
        if job.record.state is State.finished or job.record.key in self._ended_keys:
            self._report(job, on_end, skipped=True)
            return
        slot = min(set(range(self.jobs)) - {each.slot for each in self.running})
        self.running.append(start(job, self.command(job), job_environment(self.jobs, slot), slot))

    def _ended(self, running: RunningJob, on_end: Callable[[Job], None]) -> None:
        self.running.remove(running)
        running.end(stopping=self.stopped_by is not None)
        if running.job.record.state is State.interrupted:
            self.interrupted += [running.job, *running.twins]
            return
        self._report(running.job, on_end, skipped=False)
        for twin in running.twins:
            twin.load()
            self._report(twin, on_end, skipped=True)

    def _report(self, job: Job, on_end: Callable[[Job], None], skipped: bool) -> None:
        self._ended_keys.add(job.record.key)
        self.progress.job_ended(job, skipped, [each.since for each in self.running])
        on_end(job)

    def _stop(self, kill_jobs: bool) -> None:
        if self.stopped_by and not kill_jobs:
            self.progress.stopping(self.stopped_by.name, len(self.running))
        for each in self.running:
            if kill_jobs:
                kill(each.process.pid)
            elif self.stopped_by:
                each.send(self.stopped_by)

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

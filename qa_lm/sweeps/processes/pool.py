"""Run jobs, several at once, until there are no more or the user stops the sweep.

One thread does all of it: it looks at the processes twenty times a second, so no state needs a lock.
"""

import contextlib
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from types import FrameType

from qa_lm.sweeps.processes.jobs import Job, State
from qa_lm.sweeps.processes.process import Running, job_environment, kill, start
from qa_lm.sweeps.processes.progress import Progress

POLL_SECONDS = 0.05
STOPS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
SAME_REQUEST_SECONDS = 0.5
"""Signals closer together count once: the shell and the system both send SIGHUP when a terminal is closed."""


class Pool:
    """Runs jobs.

    Args:
        jobs: maximum number of jobs at once.
        command: maps a job to the command line that runs it.
        progress: prints what happens.
    """

    def __init__(self, jobs: int, command: Callable[[Job], Sequence[str]], progress: Progress) -> None:
        self.jobs, self.command, self.progress = jobs, command, progress
        self.running: list[Running] = []
        self.interrupted: list[Job] = []
        self.stopped_by: signal.Signals | None = None
        """What the jobs got after the first signal: SIGINT after Ctrl-C, otherwise SIGTERM."""
        self._requests, self._last_request = 0, float("-inf")
        self._over: set[str] = set()

    def run(self, jobs: Iterator[Job], tell: Callable[[Job], None]) -> None:
        """Run jobs until all are over, or until a signal has stopped those that ran.

        Args:
            jobs: the next one is taken whenever fewer jobs run than may run at once.
            tell: gets each job that has finished or failed.
        """
        with self._signals_noted():
            try:
                self._run(jobs, tell)
            finally:  # after an error, nobody would record how the jobs end
                for each in self.running:
                    each.send(signal.SIGTERM)
                for each in self.running:
                    each.process.wait()
                    each.end(stopping=True)

    def _run(self, jobs: Iterator[Job], tell: Callable[[Job], None]) -> None:
        more, passed_on = True, 0
        while more or self.running:
            for each in [each for each in self.running if each.process.poll() is not None]:
                self._ended(each, tell)
            if self._requests > passed_on:
                more = False
                self._stop(kill_jobs=self._requests > 1)
                passed_on = self._requests
            while more and len(self.running) < self.jobs:
                job = next(jobs, None)
                if job is None:
                    more = False
                else:
                    self._begin(job, tell)
            time.sleep(POLL_SECONDS)

    def _begin(self, job: Job, tell: Callable[[Job], None]) -> None:
        """Start a job, unless it is over already or another job computes its result now."""
        for each in self.running:
            if each.job.folder == job.folder:
                each.twins.append(job)
                return
        job.load()
        if job.record.state is State.finished or job.record.key in self._over:
            self._report(job, tell, skipped=True)
            return
        slot = min(set(range(self.jobs)) - {each.slot for each in self.running})
        self.running.append(start(job, self.command(job), job_environment(self.jobs, slot), slot))

    def _ended(self, running: Running, tell: Callable[[Job], None]) -> None:
        self.running.remove(running)
        running.end(stopping=self.stopped_by is not None)
        if running.job.record.state is State.interrupted:
            self.interrupted += [running.job, *running.twins]
            return
        self._report(running.job, tell, skipped=False)
        for twin in running.twins:
            twin.load()
            self._report(twin, tell, skipped=True)

    def _report(self, job: Job, tell: Callable[[Job], None], skipped: bool) -> None:
        self._over.add(job.record.key)
        self.progress.over(job, skipped, [each.since for each in self.running])
        tell(job)

    def _stop(self, kill_jobs: bool) -> None:
        if self.stopped_by and not kill_jobs:
            self.progress.stopping(self.stopped_by.name, len(self.running))
        for each in self.running:
            if kill_jobs:
                kill(each.process.pid)
            elif self.stopped_by:
                each.send(self.stopped_by)

    @contextlib.contextmanager
    def _signals_noted(self) -> Iterator[None]:
        """Only note signals that would end this process; those that it ignores (SIGHUP under nohup) stay ignored."""
        taken = [each for each in STOPS if signal.getsignal(each) is not signal.SIG_IGN]
        before = {each: signal.signal(each, self._note) for each in taken}
        try:
            yield
        finally:
            for each, handler in before.items():
                signal.signal(each, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.stopped_by = self.stopped_by or (signal.SIGINT if number == signal.SIGINT else signal.SIGTERM)
        if time.monotonic() - self._last_request > SAME_REQUEST_SECONDS:
            self._requests += 1
        self._last_request = time.monotonic()

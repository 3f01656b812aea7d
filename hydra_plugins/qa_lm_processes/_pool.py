"""Several jobs at a time, until there are no more: starts, ends, skips, waits for other sweeps' jobs, and stops."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path

from hydra_plugins.qa_lm_processes._jobs import Claim, Job, State, claim
from hydra_plugins.qa_lm_processes._process import Running, end, environment, start
from hydra_plugins.qa_lm_processes._progress import Progress
from hydra_plugins.qa_lm_processes._stopping import Stopping

POLL_SECONDS = 0.05
LOCK_SECONDS = 1.0
"""Time between two looks at a job that another sweep runs."""


class Pool:
    """Runs jobs.

    Args:
        sweep: the sweep folder.
        jobs: how many at once.
        command: a job and its folder to the command line that runs it.
        result: name of the file that a job's folder has once the job is finished.
        progress: is told what happens.
    """

    def __init__(
        self, sweep: Path, jobs: int, command: Callable[[Job, Path], Sequence[str]], result: str, progress: Progress
    ) -> None:
        self.sweep, self.jobs, self.command, self.result, self.progress = sweep, jobs, command, result, progress
        self.running: list[Running] = []
        self.elsewhere: list[Job] = []
        """Jobs that another sweep runs."""
        self.unfinished: list[tuple[Job, str]] = []
        """Once stopped: jobs that had been asked for, and in words how far they are."""
        self.stopping = Stopping()

    def run(self, ask: Callable[[], Job | None], tell: Callable[[Job, Claim], None]) -> bool:
        """Run what is asked for.

        Args:
            ask: the next job; None for no more.
            tell: is called for each job that is over, while it is still held.

        Returns:
            Whether all are over; False after Ctrl-C or a SIGTERM, once all that ran have ended.
        """
        with self.stopping:
            try:
                self._run(ask, tell)
            except BaseException:
                self._abandon()
                raise
        self.unfinished += [(job, "run by another process") for job in self.elsewhere]
        self.progress.close()
        return self.stopping.first is None

    def _run(self, ask: Callable[[], Job | None], tell: Callable[[Job, Claim], None]) -> None:
        more, told, looked = True, 0, 0.0
        while True:
            for each in [each for each in self.running if each.process.poll() is not None]:
                self._ended(each, tell)
            if self.stopping.first is not None:
                told = self._pass_on(told)
                if not self.running:
                    return
            else:
                if time.monotonic() - looked > LOCK_SECONDS:
                    looked = time.monotonic()
                    self._look_elsewhere(tell)
                more = more and self._fill(ask, tell)
                if not more and not self.running and not self.elsewhere:
                    return
            self.progress.show([each.since for each in self.running], len(self.elsewhere))
            time.sleep(POLL_SECONDS)

    def _fill(self, ask: Callable[[], Job | None], tell: Callable[[Job, Claim], None]) -> bool:
        """Begin jobs until all places are taken; False once there are no more to ask for."""
        while len(self.running) < self.jobs and self.stopping.first is None:
            job = ask()
            if job is None:
                return False
            self._begin(job, tell)
        return True

    def _look_elsewhere(self, tell: Callable[[Job, Claim], None]) -> None:
        """Take up what other sweeps have let go of."""
        for job in self.elsewhere[:]:
            if len(self.running) < self.jobs:
                self.elsewhere.remove(job)
                self._begin(job, tell)

    def _begin(self, job: Job, tell: Callable[[Job, Claim], None]) -> None:
        """Start the job, or tell that it is over already, or note that another process is at it."""
        held = claim(self.sweep, job)
        if held is None:
            self.elsewhere.append(job)
            return
        record = held.record
        if record.state is State.running and (held.folder / self.result).is_file():
            # The sweep that ran it was killed, the job lived on to its end.
            record.state, record.exit_code = State.finished, 0
            held.save()
        failed_meanwhile = record.state is State.failed and record.starts > job.starts_before
        if record.state is State.finished or failed_meanwhile:
            self._over(job, held, tell, skipped=True)
            return
        slot = min(set(range(self.jobs)) - {each.slot for each in self.running})
        command = self.command(job, held.folder)
        self.running.append(start(job, held, command, environment(self.jobs, slot), slot))

    def _ended(self, running: Running, tell: Callable[[Job, Claim], None]) -> None:
        self.running.remove(running)
        end(running, running.process.returncode, self.stopping.first is not None)
        record = running.claim.record
        if record.state is State.interrupted:
            self.unfinished.append((running.job, f"interrupted after {record.seconds:,.0f} s"))
            running.claim.release()
            return
        self._over(running.job, running.claim, tell, skipped=False)

    def _over(self, job: Job, held: Claim, tell: Callable[[Job, Claim], None], skipped: bool) -> None:
        self.progress.over(job, held, skipped, [each.since for each in self.running], len(self.elsewhere))
        tell(job, held)
        held.release()

    def _pass_on(self, told: int) -> int:
        """Send jobs the signals that came since; returns how many have been dealt with."""
        for number in range(told + 1, self.stopping.count + 1):
            if number == 1:
                self.progress.stopping(self.stopping.passed_on.name, len(self.running))
            for each in self.running:
                if number == 1:
                    each.tell(self.stopping.passed_on)
                else:
                    each.kill()
        return self.stopping.count

    def _abandon(self) -> None:
        """End jobs after an error of ours: nobody would note how they end."""
        for each in self.running:
            each.tell(self.stopping.passed_on)
        for each in self.running:
            end(each, each.process.wait(), stopping=True)
            each.claim.release()

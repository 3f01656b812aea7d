"""A queue before the model: requests that arrive together are answered together."""

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from qa_lm.errors import UserError
from qa_lm.serving.engine import Job, Outcome

MOST = 64
"""Jobs of a batch."""
WAIT = 0.005
"""Seconds that a batch waits for as many jobs as the one before it had."""
Answer = Callable[[Sequence[Job]], list[Outcome | UserError]]


class QueueFull(Exception):
    """The queue has as many jobs as it may have."""


@dataclass(eq=False)
class _Waiting:
    job: Job
    future: "asyncio.Future[Outcome]"


class Batches:
    """Collects jobs and has them answered in one thread.

    The model's thread is busy for as long as a batch takes, so the next batch fills by itself. A single client never
    waits: the wait is only for clients that were just answered together and are about to ask again.

    Args:
        answer: answers jobs; runs in the thread.
        most_waiting: jobs that may wait.
    """

    def __init__(self, answer: Answer, most_waiting: int) -> None:
        self.answer, self.most_waiting = answer, most_waiting
        self.waiting: deque[_Waiting] = deque()
        self.batches = 0
        self._arrived = asyncio.Event()
        self._last = 1
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="model")

    async def submit(self, job: Job) -> Outcome:
        """Have a job answered. If this is cancelled, the job leaves the queue, or its decoding ends.

        Raises:
            QueueFull: too many jobs are waiting.
            UserError: the job cannot be answered.
        """
        if len(self.waiting) >= self.most_waiting:
            raise QueueFull
        entry = _Waiting(job, asyncio.get_running_loop().create_future())
        self.waiting.append(entry)
        self._arrived.set()
        try:
            return await entry.future
        finally:
            job.unwanted = True
            with contextlib.suppress(ValueError):
                self.waiting.remove(entry)

    async def run(self) -> None:
        """Answer jobs until cancelled."""
        try:
            while True:
                await self._arrived.wait()
                await self._gather()
                batch = [self.waiting.popleft() for _ in range(min(MOST, len(self.waiting)))]
                if not self.waiting:
                    self._arrived.clear()
                if batch:
                    self._last = len(batch)
                    await self._answer(batch)
        finally:
            self._thread.shutdown()

    async def _gather(self) -> None:
        loop = asyncio.get_running_loop()
        end = loop.time() + WAIT
        while len(self.waiting) < min(self._last, MOST) and loop.time() < end:
            await asyncio.sleep(WAIT / 5)

    async def _answer(self, batch: Sequence[_Waiting]) -> None:
        self.batches += 1
        jobs = [each.job for each in batch]
        try:
            found: Sequence[Any] = await asyncio.get_running_loop().run_in_executor(self._thread, self.answer, jobs)
        except Exception as error:
            if len(batch) > 1:  # one of them must not fail the others
                for each in batch:
                    each.job.on_token = None
                    await self._answer([each])
                return
            found = [error]
        for each, outcome in zip(batch, found, strict=True):
            if each.future.done():
                continue
            if isinstance(outcome, Exception):
                each.future.set_exception(outcome)
            else:
                each.future.set_result(outcome)

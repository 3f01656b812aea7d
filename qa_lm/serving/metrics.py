"""Counts of a server in the text format of Prometheus."""

import bisect
import time
from collections import Counter
from collections.abc import Callable, Iterator

from starlette.types import ASGIApp, Message, Receive, Scope, Send

BOUNDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
"""Upper bounds of the histogram of seconds."""
CLIENT_LEFT = 499
"""Status of a request whose client has left before the response; nobody reads it."""


class Metrics:
    """Counts requests, seconds and tokens.

    Args:
        queue_length: number of jobs that wait for the model.
        batches: number of batches that were answered.
    """

    def __init__(self, queue_length: Callable[[], int], batches: Callable[[], int]) -> None:
        self.queue_length, self.batches = queue_length, batches
        self.requests: Counter[tuple[str, int]] = Counter()
        self.tokens: Counter[str] = Counter()
        self.abstained = 0
        self._in_bounds = [0] * (len(BOUNDS) + 1)
        self._seconds = 0.0

    def add_request(self, path: str, status: int, seconds: float) -> None:
        """Count a request to a path of the server."""
        self.requests[path, status] += 1
        self._in_bounds[bisect.bisect_left(BOUNDS, seconds)] += 1
        self._seconds += seconds

    def add_tokens(self, prompt: int, written: int) -> None:
        """Count the tokens of a prompt and of its answer."""
        self.tokens["in"] += prompt
        self.tokens["out"] += written

    def text(self) -> str:
        """All counts."""
        return "\n".join([*self._lines(), ""])

    def _lines(self) -> Iterator[str]:
        yield from _heading("requests_total", "counter", "Requests by path and status.")
        for (path, status), count in sorted(self.requests.items()):
            yield f'qa_lm_requests_total{{path="{path}",status="{status}"}} {count}'
        yield from _heading("request_seconds", "histogram", "Seconds from a request to the end of its response.")
        total = 0
        for bound, count in zip([*BOUNDS, "+Inf"], self._in_bounds, strict=True):
            total += count
            yield f'qa_lm_request_seconds_bucket{{le="{bound}"}} {total}'
        yield f"qa_lm_request_seconds_sum {self._seconds:.6f}"
        yield f"qa_lm_request_seconds_count {total}"
        yield from _heading("queue_length", "gauge", "Requests that wait for the model.")
        yield f"qa_lm_queue_length {self.queue_length()}"
        yield from _heading("batches_total", "counter", "Batches that the model has answered.")
        yield f"qa_lm_batches_total {self.batches()}"
        yield from _heading("tokens_total", "counter", "Tokens of prompts (in) and of answers (out).")
        for direction in ("in", "out"):
            yield f'qa_lm_tokens_total{{direction="{direction}"}} {self.tokens[direction]}'
        yield from _heading("abstained_total", "counter", 'Questions answered with "I don\'t know".')
        yield f"qa_lm_abstained_total {self.abstained}"


def _heading(name: str, kind: str, meaning: str) -> Iterator[str]:
    yield f"# HELP qa_lm_{name} {meaning}"
    yield f"# TYPE qa_lm_{name} {kind}"


class Measured:
    """Middleware that counts each request.

    Args:
        app: what is measured.
        metrics: the counts.
        paths: paths that have counts of their own; the others share one.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics, paths: frozenset[str]) -> None:
        self.app, self.metrics, self.paths = app, metrics, paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        begin, status = time.monotonic(), CLIENT_LEFT

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self.app(scope, receive, sending)
        finally:
            path = scope["path"] if scope["path"] in self.paths else "other"
            self.metrics.add_request(path, status, time.monotonic() - begin)

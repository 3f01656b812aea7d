"""Clients that ask a server at the same time, in one process, over connections that stay open.

    python -m benchmarks.serving.client PORT PATH REQUESTS CLIENTS SECONDS

Prints JSON. Plain HTTP over asyncio: an HTTP library would take more of the two cores than the servers do.
"""

import asyncio
import itertools
import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any

WARM_UP = 0.2
"""Share of the time that is not counted."""
STREAMED = 20
"""Answers that are streamed to one client, for the time to the first text."""


class Client:
    """A connection that asks one request after the other."""

    def __init__(self, port: int, path: str) -> None:
        self.port, self.path = port, path

    async def connect(self) -> None:
        """Open the connection."""
        self.reader, self.writer = await asyncio.open_connection("127.0.0.1", self.port)

    async def ask(self, body: dict[str, Any]) -> tuple[dict[str, Any], float]:
        """The answer, and its seconds."""
        begin = time.perf_counter()
        length = await self._asked(body)
        content = (
            await self.reader.readexactly(length) if length is not None else b"".join([c async for c in self._chunks()])
        )
        return json.loads(content), time.perf_counter() - begin

    async def seconds_to_first_text(self, body: dict[str, Any]) -> float:
        """Seconds until a stream has its first text."""
        begin, found = time.perf_counter(), None
        await self._asked({**body, "stream": True})
        async for chunk in self._chunks():
            if found is None and _has_text(chunk):
                found = time.perf_counter() - begin
        return found if found is not None else time.perf_counter() - begin

    async def _asked(self, body: dict[str, Any]) -> int | None:
        """Send a request and read the headers; again over a new connection if the server has closed this one."""
        try:
            self._send(body)
            return await self._head()
        except (asyncio.IncompleteReadError, ConnectionError):
            await self.connect()
            self._send(body)
            return await self._head()

    def _send(self, body: dict[str, Any]) -> None:
        content = json.dumps(body).encode()
        head = f"POST /v1/{self.path} HTTP/1.1\r\nHost: 127.0.0.1:{self.port}\r\nContent-Type: application/json\r\n"
        self.writer.write(f"{head}Content-Length: {len(content)}\r\n\r\n".encode() + content)

    async def _head(self) -> int | None:
        """Read the headers; returns the length of the body, None if it comes in chunks."""
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode().lower()
        if " 200 " not in head.splitlines()[0]:
            sys.exit(f"{head}{await self.reader.read(2000)!r}")
        return int(head.partition("content-length:")[2].split()[0]) if "content-length:" in head else None

    async def _chunks(self) -> Any:
        while size := int(await self.reader.readuntil(b"\r\n"), 16):
            yield await self.reader.readexactly(size)
            await self.reader.readexactly(2)
        await self.reader.readexactly(2)


def _has_text(chunk: bytes) -> bool:
    for line in chunk.splitlines():
        if line.startswith(b"data: {"):
            choices = json.loads(line[6:]).get("choices") or [{}]
            if choices[0].get("text") or choices[0].get("delta", {}).get("content"):
                return True
    return False


def text_of(answer: dict[str, Any]) -> str:
    """The text of an answer."""
    choice = answer["choices"][0]
    return str(choice["text"] if "text" in choice else choice["message"]["content"])


async def measure(port: int, path: str, bodies: list[dict[str, Any]], count: int, seconds: float) -> dict[str, Any]:
    """Ask for some seconds with some clients."""
    clients = [Client(port, path) for _ in range(count)]
    for each in clients:
        await each.connect()
    begin = time.perf_counter()
    counted, end = begin + WARM_UP * seconds, begin + seconds
    numbers = itertools.count()
    times: list[float] = []
    answers: dict[str, str] = {}

    async def work(client: Client) -> None:
        while time.perf_counter() < end:
            number = next(numbers) % len(bodies)
            answer, taken = await client.ask(bodies[number])
            answers[str(number)] = text_of(answer)
            if time.perf_counter() >= counted:
                times.append(taken)

    await asyncio.gather(*map(work, clients))  # whoever asked before the end gets an answer
    took = time.perf_counter() - counted
    first = [await clients[0].seconds_to_first_text(body) for body in bodies[:STREAMED]] if count == 1 else []
    ordered = sorted(times)
    return {
        "requests_per_second": len(times) / took,
        "median_ms": 1000 * statistics.median(ordered),
        "percentile_99_ms": 1000 * ordered[min(len(ordered) - 1, int(0.99 * len(ordered)))],
        "first_text_ms": 1000 * statistics.median(first) if first else None,
        "requests": len(times),
        "answers": answers,
    }


def main() -> None:
    """See above."""
    port, path, requests, count, seconds = sys.argv[1:]
    bodies = [each[path] for each in json.loads(Path(requests).read_text())]
    print(json.dumps(asyncio.run(measure(int(port), path, bodies, int(count), float(seconds)))))


if __name__ == "__main__":
    main()

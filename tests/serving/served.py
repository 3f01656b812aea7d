"""Servers that tests start, as processes of their own on a free port of the loopback."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import httpx

from qa_lm.inference.calibration import Calibration
from tests.scripts_started import Scripts, StartedScript

SECONDS = 60
CALIBRATION = Calibration(
    method="platt",
    log_probabilities=[-1.0, -0.2, 0.0],
    probabilities=[0.0, 0.5, 0.96],
    fitted_on={"validation": 40},
    brier=0.1,
    curve=[
        {"threshold": 0.5, "coverage": 0.5, "precision": 0.9},
        {"threshold": 0.0, "coverage": 1.0, "precision": 0.5},
    ],
    held_out={"pairs": 100, "right": 50},
)
"""Of a model that is right if it is certain."""
CONFIDENCE = {"coefficients": [0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0], "intercept": -1.0}
"""Of mode `best`: certain of a question that is equal to a trained one."""


@dataclass
class Served:
    """A server that runs."""

    script: StartedScript
    url: str
    """With a slash at its end."""

    def get(self, path: str, **how: Any) -> httpx.Response:
        """GET a path."""
        return httpx.get(self.url + path, timeout=SECONDS, **how)

    def post(self, path: str, content: Any, **how: Any) -> httpx.Response:
        """POST JSON to a path below /v1/."""
        return httpx.post(f"{self.url}v1/{path}", json=content, timeout=SECONDS, **how)

    def ask(self, question: str, **more: Any) -> dict[str, Any]:
        """The answer to a question."""
        response = self.post("chat/completions", chat(question, **more))
        assert response.status_code == 200, response.text
        found: dict[str, Any] = response.json()
        return found

    def events(self, path: str, content: Any) -> list[Any]:
        """The events of a stream, of which the last must be [DONE]."""
        with httpx.stream("POST", f"{self.url}v1/{path}", json=content | {"stream": True}, timeout=SECONDS) as response:
            assert response.status_code == 200
            assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
            lines = [line for line in response.iter_lines() if line]
        assert lines.pop() == "data: [DONE]"
        return [json.loads(line.removeprefix("data: ")) for line in lines]

    def metric(self, name: str) -> float:
        """A number of /metrics."""
        lines = self.get("metrics").text.splitlines()
        return float(next(line for line in lines if line.startswith(f"qa_lm_{name} ")).split()[1])

    def signal(self, number: int) -> "subprocess.CompletedProcess[str]":
        """Send a signal, and wait for the end."""
        os.kill(self.script.pid, number)
        return self.script.end()


def chat(question: str, **more: Any) -> dict[str, Any]:
    """The body of a request."""
    return {"messages": [{"role": "user", "content": question}], **more}


@contextlib.contextmanager
def served(scripts: Scripts, *arguments: str, **environment: str) -> Iterator[Served]:
    """A server with these arguments; it is ended at the end of the block, if it still runs."""
    script = scripts.start("serve.py", "--port", "0", *arguments, environment=os.environ | environment)
    output = Path(os.readlink(_output_of(script)))
    begin = time.monotonic()
    while "serving" not in output.read_text():
        if script.ended():
            raise AssertionError(script.end().stderr)
        assert time.monotonic() < begin + SECONDS
        time.sleep(0.02)
    server = Served(script, output.read_text().split()[-1])
    try:
        yield server
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(script.pid, 0)
            if not script.ended():
                server.signal(signal.SIGTERM)


def _output_of(script: StartedScript) -> str:
    """The link to the file of its standard output, which is there soon after the start."""
    link = f"/proc/{script.pid}/fd/1"
    while not os.readlink(link).endswith("/stdout"):
        time.sleep(0.01)
    return link


def calibrated(run: Path, folder: Path) -> Path:
    """A copy of a run whose model has a calibration of the modes `free` and `best`."""
    copy = folder / "calibrated"
    copy.mkdir()
    shutil.copytree(run / "model", copy / "model")
    for name in ("config.yaml", "ledger.parquet"):
        shutil.copy(run / name, copy)
    CALIBRATION.save(copy / "model")
    path = copy / "model" / "known_answers.json"
    fitted = {"confidence": CONFIDENCE, "calibration": asdict(CALIBRATION)}
    path.write_text(json.dumps(json.loads(path.read_text()) | fitted))
    return copy


def texts(events: Sequence[dict[str, Any]]) -> str:
    """The text of a streamed chat."""
    return "".join(choice["delta"].get("content", "") for event in events for choice in event["choices"])

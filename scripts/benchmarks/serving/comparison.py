"""Requests a second and the time to answer for 1, 8 and 64 clients at once, of servers with the same model.

Each server is started alone, asked the same questions through the same client (`benchmarks.serving.client`), and ended.
All continue the same raw prompts at /v1/completions, greedily and up to the same length; ours also answers chats, with
its confidence and the nearest trained questions. A stream shows the time to the first text.
"""

import json
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.common import SCRIPTS, Runs, measured_by, pairs_file, shown

CLIENTS = (1, 8, 64)
MAX_TOKENS = 64
QUESTIONS = 200
START_SECONDS = 120
COLUMNS = {
    "requests/s": "requests_per_second",
    "median, ms": "median_ms",
    "99th, ms": "percentile_99_ms",
    "first text, ms": "first_text_ms",
    "as ours": "same_as_ours",
    "start, s": "start_seconds",
}


def compare(file: str, model: str, rounds: int, seconds: float, peers: str | None, gguf: str | None) -> Runs:
    """Every server with every number of clients, taking turns.

    Args:
        file: a file of pairs, whose questions are asked.
        model: the folder `model/` of a run with a plain prompt.
        rounds: how often each side runs.
        seconds: how long each number of clients asks.
        peers: the Python of an environment with `transformers[serving]`, and xllamacpp for llama.cpp.
        gguf: the same model as a GGUF file; None leaves llama.cpp out.
    """
    sides: Runs = {}
    with tempfile.TemporaryDirectory() as folder:
        requests = Path(folder) / "requests.json"
        requests.write_text(json.dumps(_requests(file, Path(model), Path(folder))))
        for _ in range(rounds):
            reference: dict[str, str] = {}
            for name, command in _commands(model, peers, gguf).items():
                port = _free_port()
                with _started([each.replace("PORT", str(port)) for each in command], port, Path(folder)) as started:
                    if started is None:
                        print(f"{name}: does not start: {(Path(folder) / 'log').read_text()[-500:]}", file=sys.stderr)
                        continue
                    for path in ("completions", "chat/completions") if name == "ours" else ("completions",):
                        what = "ours, chat and explanation" if path.startswith("chat") else name
                        for clients in CLIENTS:
                            asked = [str(port), path, str(requests), str(clients), str(seconds)]
                            found = measured_by("serving.client", *asked)
                            answers, found["start_seconds"] = found.pop("answers"), started
                            if not path.startswith("chat"):
                                reference = reference or answers
                                same = [answers[each] == reference[each] for each in answers if each in reference]
                                found["same_as_ours"] = sum(same) / max(1, len(same))
                            key = f"{what}: {clients} client{'s' * (clients > 1)}"
                            sides.setdefault(key, []).append(shown(key, found))
    return sides


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def _commands(model: str, peers: str | None, gguf: str | None) -> dict[str, list[str]]:
    ours = [
        sys.executable,
        str(SCRIPTS / "serve.py"),
        model,
        "--port",
        "PORT",
        "--timeout",
        "300",
        "--name",
        model,
        "--mode",
        "free",
    ]
    found = {"ours": ours}
    if peers:
        serve = [peers, "-m", "transformers.cli.transformers", "serve", model, "--port", "PORT", "--host", "127.0.0.1"]
        found["transformers serve"] = [*serve, "--dtype", "float32", "--device", "cpu"]
        found["transformers serve, continuous batching"] = [*found["transformers serve"], "--continuous-batching"]
        if gguf:
            script = str(SCRIPTS / "benchmarks" / "serving" / "llama_server.py")
            found["llama.cpp"] = [peers, script, gguf, "PORT", str(max(CLIENTS))]
    return found


def _requests(file: str, model: Path, work: Path) -> list[dict[str, Any]]:
    """The bodies of the requests, each for a completion and for a chat."""
    from qa_lm.data.encoding import PromptTemplate

    template = PromptTemplate.load(model)
    if template.chat or template.before or template.after:
        sys.exit(f"{model}: serve compares models with a plain prompt")
    with pairs_file(file, QUESTIONS, work).open(encoding="utf-8") as pairs:
        questions = [json.loads(line)["question"] for line in pairs]
    options = {"model": str(model), "max_tokens": MAX_TOKENS, "temperature": 0}
    ours = {**options, "model": None}
    return [
        {
            "completions": {**options, "prompt": template.prompt_text(question)},
            "chat/completions": {**ours, "messages": [{"role": "user", "content": question}]},
        }
        for question in questions
    ]


@contextmanager
def _started(command: list[str], port: int, work: Path) -> Iterator[float | None]:
    """A server that answers, with the seconds that its start took; None if it does not start."""
    with (work / "log").open("w") as log, subprocess.Popen(command, stdout=log, stderr=log) as process:
        try:
            yield _answers(process, port)
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()


def _answers(process: "subprocess.Popen[bytes]", port: int) -> float | None:
    begin = time.monotonic()
    while time.monotonic() < begin + START_SECONDS and process.poll() is None:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5):
                return time.monotonic() - begin
        except (OSError, urllib.error.URLError):
            time.sleep(0.2)
    return None

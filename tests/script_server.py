"""Runs scripts in forks of a process that has imported what they need: most of a script's seconds are imports.

    python -m tests.script_server

Reads requests, a line of JSON each, and answers each with a line; `tests.scripts_started` is what asks. A script is run
from its file as `__main__`, with its own working folder, arguments, environment, limits and streams, as if Python had
been started for it.
"""

import gc
import json
import os
import resource
import runpy
import signal
import sys
import tempfile
import traceback
from pathlib import Path
from typing import Any

# What the scripts import.
import hydra  # noqa: F401

import qa_lm.inference.answerer
import qa_lm.reporting.run.report
import qa_lm.training.train  # noqa: F401

SECONDS = 1200
"""A script that takes longer is ended."""


class Scripts:
    """The scripts that were started and have not ended."""

    def __init__(self) -> None:
        self.folders: dict[int, tempfile.TemporaryDirectory[str]] = {}

    def start(self, request: dict[str, Any]) -> dict[str, Any]:
        """Start a script: {"script": path, "arguments": [...], "cwd": folder, "stdin": text, "environment": {...},
        "limits": {...}}. Answers {"pid": its number}."""
        folder = tempfile.TemporaryDirectory()
        Path(folder.name, "stdin").write_text(request["stdin"], encoding="utf-8")
        child = os.fork()
        if child == 0:
            _become(request, [Path(folder.name, name) for name in ("stdin", "stdout", "stderr")])
        self.folders[child] = folder
        return {"pid": child}

    def wait(self, request: dict[str, Any]) -> dict[str, Any]:
        """Wait for the end of script {"pid": number}. Answers {"code": exit code, "stdout": text, "stderr": text}."""
        _, status = os.waitpid(request["pid"], 0)
        with self.folders.pop(request["pid"]) as folder:
            paths = [Path(folder, name) for name in ("stdout", "stderr")]
            texts = [path.read_text(encoding="utf-8") if path.exists() else "" for path in paths]
        return {"code": os.waitstatus_to_exitcode(status), "stdout": texts[0], "stderr": texts[1]}


def _become(request: dict[str, Any], files: list[Path]) -> None:
    """Be that script until its end."""
    code = 1
    try:
        _take_over(request, files)
        runpy.run_path(request["script"], run_name="__main__")
        code = 0
    except SystemExit as end:
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
        code = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _take_over(request: dict[str, Any], files: list[Path]) -> None:
    """What the system gives a process at its start."""
    signal.alarm(SECONDS)
    os.setsid()
    for number, (path, flags) in enumerate(zip(files, (os.O_RDONLY, os.O_WRONLY, os.O_WRONLY), strict=True)):
        os.dup2(os.open(path, flags | (os.O_CREAT if number else 0)), number)
    sys.stdin = open(0, encoding="utf-8")  # noqa: SIM115
    sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", encoding="utf-8", buffering=1, closefd=False)  # noqa: SIM115
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["environment"])
    sys.argv = [request["script"], *request["arguments"]]
    sys.orig_argv = [sys.executable, *sys.argv]
    sys.path[0] = str(Path(request["script"]).parent)
    for name, limit in request["limits"].items():
        resource.setrlimit(getattr(resource, name), (limit, limit))


def main() -> None:
    """See above."""
    gc.freeze()
    answers, scripts = os.fdopen(os.dup(1), "w", encoding="utf-8"), Scripts()
    for line in sys.stdin:
        request = json.loads(line)
        answer = scripts.wait(request) if "pid" in request else scripts.start(request)
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()

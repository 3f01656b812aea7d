"""Runs scripts in forks of a process that has imported what they need: most of a script's seconds are imports.

    python -m tests.script_server

Reads a line of JSON for each run ({"script": path, "arguments": [...], "cwd": folder, "stdin": text}) and answers with
one ({"code": exit code, "stdout": text, "stderr": text}). The script is run from its file as `__main__`, with its own
working folder, arguments and streams, as if Python had been started for it.
"""

import json
import os
import runpy
import signal
import sys
import tempfile
import traceback
from pathlib import Path
from typing import Any

# What the scripts import.
import hydra  # noqa: F401

import qa_lm.answering.answerer
import qa_lm.reporting.run_report
import qa_lm.training.train  # noqa: F401

SECONDS = 300
"""A script that takes longer is ended."""


def run(request: dict[str, Any]) -> dict[str, Any]:
    """Run a script in a fork."""
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder) / name for name in ("stdin", "stdout", "stderr")]
        files[0].write_text(request["stdin"], encoding="utf-8")
        child = os.fork()
        if child == 0:
            _become(request, files)
        _, status = os.waitpid(child, 0)
        texts = [path.read_text(encoding="utf-8") if path.exists() else "" for path in files[1:]]
    return {"code": os.waitstatus_to_exitcode(status), "stdout": texts[0], "stderr": texts[1]}


def _become(request: dict[str, Any], files: list[Path]) -> None:
    """Be that script until its end."""
    signal.alarm(SECONDS)
    for number, (path, flags) in enumerate(zip(files, (os.O_RDONLY, os.O_WRONLY, os.O_WRONLY), strict=True)):
        os.dup2(os.open(path, flags | (os.O_CREAT if number else 0)), number)
    sys.stdin = open(0, encoding="utf-8")  # noqa: SIM115
    sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", encoding="utf-8", buffering=1, closefd=False)  # noqa: SIM115
    os.chdir(request["cwd"])
    sys.argv = [request["script"], *request["arguments"]]
    sys.path[0] = str(Path(request["script"]).parent)
    code = 1
    try:
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


def main() -> None:
    """See above."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    for line in sys.stdin:
        print(json.dumps(run(json.loads(line))), file=answers, flush=True)


if __name__ == "__main__":
    main()

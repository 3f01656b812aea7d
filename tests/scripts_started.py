"""Scripts, run to their end or started and watched, as a user's terminal would."""

import json
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypedDict, Unpack

import psutil

ROOT = Path(__file__).parent.parent


class How(TypedDict, total=False):
    """How a script is started."""

    stdin: str
    """What is typed; nothing."""
    environment: Mapping[str, str]
    """All of it; that of the tests."""
    limits: Mapping[str, int]
    """Names and values for `resource.setrlimit`; none."""


class StartedScript:
    """A script that runs; `end` must be called."""

    def __init__(self, server: "subprocess.Popen[str]", pid: int) -> None:
        self.server = server
        self.pid = pid

    def ended(self) -> bool:
        """Whether it has come to its end."""
        return psutil.Process(self.pid).status() == psutil.STATUS_ZOMBIE

    def end(self) -> "subprocess.CompletedProcess[str]":
        """Wait for its end."""
        found = _ask(self.server, {"pid": self.pid})
        return subprocess.CompletedProcess([], found["code"], found["stdout"], found["stderr"])


class Scripts:
    """Starts scripts in a folder. Each is a process of its own; see `tests.script_server`."""

    def __init__(self, server: "subprocess.Popen[str]", folder: Path) -> None:
        self.server = server
        self.folder = folder

    def __call__(self, name: str, *arguments: str, **how: Unpack[How]) -> "subprocess.CompletedProcess[str]":
        """Run a script to its end: script("train.py", "seed=1")."""
        return self.start(name, *arguments, **how).end()

    def start(self, name: str, *arguments: str, **how: Unpack[How]) -> StartedScript:
        """Start a script of scripts/, and do not wait for it."""
        request = {
            "script": str(ROOT / "scripts" / name),
            "arguments": arguments,
            "cwd": str(self.folder),
            "stdin": how.get("stdin", ""),
            "environment": dict(how.get("environment", os.environ)),
            "limits": dict(how.get("limits", {})),
        }
        return StartedScript(self.server, _ask(self.server, request)["pid"])


def _ask(server: "subprocess.Popen[str]", request: dict[str, Any]) -> dict[str, Any]:
    assert server.stdin is not None
    assert server.stdout is not None
    server.stdin.write(json.dumps(request) + "\n")
    server.stdin.flush()
    answer: dict[str, Any] = json.loads(server.stdout.readline())
    return answer

"""Start jobs as forks of one process that has imported everything (`qa_lm.sweeps.processes.fork_server`).

Most of the time of a small job is imports. A forked job has its own process group, environment and output, as one that
is started by `subprocess`, and nothing that it does reaches the others. Only for Linux: forks of a process that has
loaded the system's libraries are not safe on macOS.
"""

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from qa_lm.sweeps.processes import fork_server

ANSWER_SECONDS = 60.0
"""Maximum time of an answer; a fork takes milliseconds."""
WAIT_SECONDS = 0.02


class JobProcess(Protocol):
    """What a job needs of its process; `subprocess.Popen` has it too."""

    @property
    def pid(self) -> int:
        """Process id."""

    def poll(self) -> int | None:
        """Return the exit code, negative if a signal killed the process; None while it runs."""

    def wait(self) -> int:
        """Wait for the end, and return the exit code."""

    def send_signal(self, sig: int) -> None:
        """Send a signal, unless the process is known to have ended."""


class ForkServer:
    """The process that forks jobs. It ends with this object's `close`, or when this process ends.

    Args:
        program: the script, or `-m` and a module: what the jobs run.
        modules: modules to import before the first fork.
        environment: environment variables of a job; libraries read some of them when they are imported.
    """

    def __init__(self, program: Sequence[str], modules: Sequence[str], environment: Mapping[str, str]) -> None:
        self.refusal: str | None = None
        """Why jobs cannot be forked, or not any more."""
        self._is_ready = self._is_lost = False
        self._socket, theirs = socket.socketpair()
        self._socket.settimeout(ANSWER_SECONDS)
        self._answers = self._socket.makefile("r", encoding="utf-8")
        folder = os.getcwd() if program[0] == "-m" else str(Path(program[0]).resolve().parent)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, fork_server.__file__, folder, str(theirs.fileno()), *modules],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env={**environment, **fork_server.WITHOUT_THREADS},
                process_group=0,
                pass_fds=[theirs.fileno()],
            )

    def is_settled(self) -> bool:
        """Whether the imports are done, or have failed. Does not wait."""
        if not self._is_ready and not self.refusal and select.select([self._socket], [], [], 0)[0]:
            self._is_ready = self._answered(self._answer())
        return self._is_ready or self.refusal is not None

    def start(self, command: Sequence[str], environment: Mapping[str, str], log: Path) -> "ForkedProcess | None":
        """Fork a process, in its own process group. Call it when `is_settled`.

        Args:
            command: the Python interpreter, the program, and its arguments.
            environment: all environment variables.
            log: the file to which its output is appended.

        Returns:
            The process; None if jobs cannot be forked: `refusal` says why.
        """
        if self.refusal:
            return None
        answer = self.ask({"program": list(command[1:]), "environment": dict(environment), "log": str(log)})
        return ForkedProcess(self, answer["pid"]) if answer and self._answered(answer) else None

    def ask(self, request: Mapping[str, Any]) -> dict[str, Any] | None:
        """Send a request and return the answer; None if the process has ended."""
        if self._is_lost:
            return None
        try:
            self._socket.sendall(json.dumps(request).encode() + b"\n")
        except OSError:
            self._lose()
            return None
        return self._answer()

    def close(self) -> None:
        """End the process. Jobs that still run are not touched."""
        self._process.kill()
        self._process.wait()
        self._answers.close()
        self._socket.close()

    def _answer(self) -> dict[str, Any] | None:
        try:
            line = self._answers.readline()
        except OSError:
            line = ""
        if not line:
            self._lose()
            return None
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _answered(self, answer: Mapping[str, Any] | None) -> bool:
        """Whether an answer is none that jobs cannot be forked."""
        if answer and answer["refused"]:
            self.refusal = answer["refused"]
        return self.refusal is None

    def _lose(self) -> None:
        self._process.kill()  # if it does not answer
        self._is_lost, self.refusal = True, "the process that forks them has ended"


def can_fork(program: Sequence[str]) -> bool:
    """Whether a job's program can run in a forked process: a script or a module, without options of Python."""
    if sys.platform != "linux" or not hasattr(os, "fork"):
        return False
    first, *others = program
    return (first == "-m" and len(others) > 0) or (first.endswith(".py") and not first.startswith("-"))


class ForkedProcess:
    """A job's process, a child of the process that forks.

    It keeps its process id until its exit code was asked for, so that a signal cannot reach another process.
    """

    def __init__(self, server: ForkServer, pid: int) -> None:
        self._server, self._pid = server, pid
        self._code: int | None = None

    @property
    def pid(self) -> int:
        """Process id."""
        return self._pid

    def poll(self) -> int | None:
        """Return the exit code, or None while the process runs.

        If the process that forks has ended, nobody can know the exit code. Then this one is killed.
        """
        if self._code is None:
            answer = self._server.ask({"pid": self.pid})
            if answer is None:
                self.send_signal(signal.SIGKILL)
                self._code = -signal.SIGKILL
            else:
                self._code = answer["code"]
        return self._code

    def wait(self) -> int:
        """Wait for the end, and return the exit code."""
        while (code := self.poll()) is None:
            time.sleep(WAIT_SECONDS)
        return code

    def send_signal(self, sig: int) -> None:
        """Send a signal, unless the process is known to have ended."""
        if self._code is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, sig)

"""A process that imports modules once and then forks the jobs of a sweep.

    python fork_server.py FOLDER SOCKET MODULE ...

It reads requests from a socket, a line of JSON each, and answers each with a line; `qa_lm.sweeps.processes.forks` sends
them. It has one thread, and runs none of the script's code, so a forked job begins as a new process does after its
imports. This file imports only the standard library: the folder of the script comes first on `sys.path`, and it is
put there before anything else is imported.
"""

import contextlib
import gc
import importlib
import json
import os
import runpy
import signal
import socket
import sys
from collections.abc import Iterator, Sequence
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any, NamedTuple

THREADS_OF_BLAS = "OPENBLAS_NUM_THREADS"
WITHOUT_THREADS = {THREADS_OF_BLAS: "1", "JE_ARROW_MALLOC_CONF": "background_thread:false"}
"""Environment variables that keep NumPy and pyarrow from starting threads when they are imported. The jobs give NumPy
its threads; pyarrow's only returns memory sooner."""
TASKS = Path("/proc/self/task")


class Signals(NamedTuple):
    """How a new process treats signals."""

    handlers: dict[signal.Signals, Any]
    mask: set[int]

    @classmethod
    def block(cls) -> "Signals":
        """Return the present state, and block those that end a process: this one ends when its socket is closed. In a
        fork they stay pending until its handlers are set."""
        handlers = {each: signal.getsignal(each) for each in signal.valid_signals()}
        return cls(handlers, signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]))

    def restore(self) -> None:
        """Return to this state."""
        for number, handler in self.handlers.items():
            if handler is not None and signal.getsignal(number) is not handler:
                signal.signal(number, handler)
        signal.pthread_sigmask(signal.SIG_SETMASK, self.mask)


def serve(connection: socket.socket, signals: Signals) -> list[str] | None:
    """Answer requests until the other side closes the connection.

    Args:
        connection: where the requests come from.
        signals: how the jobs treat signals at first.

    Returns:
        None in this process; in each process that it forks, the program to run: a script, or `-m` and a module, with
        its arguments.
    """
    for line in connection.makefile("r", encoding="utf-8"):
        request = json.loads(line)
        if "pid" in request:
            answer = _exit_code(request["pid"])
        elif threads := _more_threads():
            answer = {"refused": threads}
        else:
            pid = os.fork()
            if pid == 0:
                connection.close()
                return _begin(request, signals)
            with contextlib.suppress(OSError):  # the job does the same; the first of the two counts
                os.setpgid(pid, pid)
            answer = {"pid": pid, "refused": None}
        _send(connection, answer)
    return None


def run(program: list[str]) -> None:
    """Run a program as `__main__`, as Python does; exceptions end the process as usual."""
    sys.excepthook = _print_error
    first, *arguments = program
    if first == "-m":
        sys.argv = arguments
        runpy.run_module(arguments[0], run_name="__main__", alter_sys=True)
        return
    sys.argv, path = program, os.path.abspath(first)
    # As `python FILE` does, which `runpy.run_path` does not: the module stays, and its file is an absolute path.
    main, loader = ModuleType("__main__"), SourceFileLoader("__main__", path)
    main.__file__, main.__loader__ = path, loader
    sys.modules["__main__"] = main
    exec(loader.source_to_code(loader.get_data(path), path), main.__dict__)


def _begin(request: dict[str, Any], signals: Signals) -> list[str]:
    """Give this forked process what the system gives a new one."""
    os.setpgid(0, 0)
    log = os.open(request["log"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    for stream in (1, 2):
        os.dup2(log, stream)
    os.close(log)
    signals.restore()
    os.environ.clear()
    os.environ.update(request["environment"])
    sys.orig_argv = [sys.executable, *request["program"]]
    _seed()
    _set_blas_threads()
    program: list[str] = request["program"]
    return program


def _seed() -> None:
    """Seed the generators that were seeded when their modules were imported; Python's own is seeded again by itself."""
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed()
    if "torch" in sys.modules:
        sys.modules["torch"].default_generator.seed()


def _set_blas_threads() -> None:
    """Give OpenBLAS as many threads as it would have chosen when NumPy was imported."""
    if "numpy" not in sys.modules:
        return
    given = [os.environ.get(name, "") for name in (THREADS_OF_BLAS, "GOTO_NUM_THREADS", "OMP_NUM_THREADS")]
    cores = len(os.sched_getaffinity(0))
    threads = min(cores, next((int(text) for text in given if text.isdecimal() and int(text)), cores))
    if threads > 1:
        from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

        threadpool_limits(threads, user_api="blas")


def _exit_code(pid: int) -> dict[str, Any]:
    ended, status = os.waitpid(pid, os.WNOHANG)
    return {"code": os.waitstatus_to_exitcode(status) if ended else None}


def _more_threads() -> str | None:
    """Why this process must not fork: locks that other threads hold would stay locked in the job."""
    threads = len(list(TASKS.iterdir()))
    return f"the process that forks has {threads} threads" if threads > 1 else None


def _cuda_started() -> bool:
    """Whether an import has started CUDA, which forked processes could not use. torch says so only in a fork."""
    if "torch" not in sys.modules:
        return False
    pid = os.fork()
    if pid == 0:
        os._exit(bool(sys.modules["torch"].cuda._is_in_bad_fork()))
    return os.waitpid(pid, 0)[1] != 0


def _print_error(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Print a traceback without the frames above the program."""
    while trace and trace.tb_frame.f_code.co_filename in (__file__, "<frozen runpy>"):
        trace = trace.tb_next
    sys.__excepthook__(kind, error.with_traceback(trace), trace)


def _send(connection: socket.socket, answer: dict[str, Any]) -> None:
    connection.sendall(json.dumps(answer).encode() + b"\n")


def _import(modules: Sequence[str]) -> str | None:
    """Import modules without garbage collection. Returns why jobs cannot be forked, if so."""
    gc.disable()
    for module in modules:
        try:
            importlib.import_module(module)
        except Exception as error:
            return f"{module} cannot be imported: {error}"
    if _cuda_started():
        return "an import has started CUDA"
    gc.enable()
    gc.freeze()  # the jobs' garbage collection does not look through what they share
    return _more_threads()


@contextlib.contextmanager
def _connected(number: int) -> Iterator[socket.socket]:
    with socket.socket(fileno=number) as connection:
        connection.set_inheritable(False)
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # the sweep has ended
            yield connection


def main() -> list[str] | None:
    """Import the modules, say how it went, and serve. Returns the program to run in a forked process."""
    signals = Signals.block()
    folder, number, *modules = sys.argv[1:]
    if not sys.flags.safe_path:
        sys.path[0] = folder
    with _connected(int(number)) as connection:
        refused = _import(modules)
        _send(connection, {"refused": refused})
        return None if refused else serve(connection, signals)
    return None


if __name__ == "__main__":
    if job := main():
        run(job)

"""Convert the errors of commands to lines on standard error and exit codes."""

import io
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from qa_lm.errors import JobFailed, UserError, as_options, sanitize


def exit_code(work: Callable[[], None], options: Mapping[str, str] | None = None) -> int:
    """Run a command.

    Args:
        work: does the work and prints the result.
        options: the command's options for the settings that error messages name.

    Returns:
        0; 1 if a file cannot be read or written, or a job failed; 2 for a mistake of the user; 130 on Ctrl-C.
    """
    print_any_text()
    try:
        work()
        sys.stdout.flush()
    except UserError as error:
        print(f"error: {as_options(str(error), options or {})}", file=sys.stderr)
        return 2
    except JobFailed as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:
        discard_output()
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        print(f"error: {where}{error.strerror or error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def discard_output() -> None:
    """Discard further output, after the reader of standard output has exited, as `head` does."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python's flush at exit raises the error again


def print_any_text() -> None:
    """Allow all characters in standard output and error: UTF-8 if they are redirected without PYTHONIOENCODING. A
    terminal shows "?" for characters that it cannot show, where Windows would raise an error."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            kept = stream.isatty() or "PYTHONIOENCODING" in os.environ
            stream.reconfigure(encoding=None if kept else "utf-8", errors="replace")


@contextmanager
def notice(text: str) -> Iterator[None]:
    """Show a text on standard error until the block ends, if it is a terminal."""
    if not sys.stderr.isatty():
        yield
        return
    shown = sanitize(text)[: shutil.get_terminal_size().columns - 1]
    print(shown, end="\r", file=sys.stderr, flush=True)  # what is printed next overwrites it
    try:
        yield
    finally:
        print(" " * len(shown), end="\r", file=sys.stderr, flush=True)

"""The border of the commands that only read a run: errors become lines on standard error, and exit codes."""

import io
import os
import sys
from collections.abc import Callable, Mapping

from qa_lm.errors import UserError, as_options


def exit_code(work: Callable[[], None], options: Mapping[str, str] | None = None) -> int:
    """Do the work of a command.

    Args:
        work: what it does and prints.
        options: settings that error messages name, and the options of the command that stand for them.

    Returns:
        0; 1 if a file cannot be read or written; 2 for a mistake of the user's; 130 on Ctrl-C.
    """
    print_any_text()
    try:
        work()
    except UserError as error:
        print(f"error: {as_options(str(error), options or {})}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # the reader of our output has left
        sys.stderr.close()
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        print(f"error: {where}{error.strerror or error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def print_any_text() -> None:
    """Let standard output and error take every character: as UTF-8 where they are redirected, unless PYTHONIOENCODING
    names another encoding; a terminal shows "?" for what it cannot show. Windows would raise an error."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            kept = stream.isatty() or "PYTHONIOENCODING" in os.environ
            stream.reconfigure(encoding=None if kept else "utf-8", errors="replace")

"""The border of the commands that only read a run: errors become lines on standard error, and exit codes."""

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

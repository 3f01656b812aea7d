"""The one exception that means: the user can mend this."""

from pathlib import Path


class UserError(ValueError):
    """A mistake in what the user gave: a key, a value, a file.

    The message is one or two lines: what is wrong, where, and what to do. Scripts print it without a traceback and
    exit with code 2.

    Args:
        message: what to print.
        key: the setting at fault, if it is one, so that a script can add the file it stands in.
    """

    def __init__(self, message: str, key: str | None = None) -> None:
        super().__init__(message)
        self.key = key


def located(path: Path | str, line: int, message: str) -> UserError:
    """An error at a line of a file, in the `file:line: message` form that editors can follow."""
    return UserError(f"{path}:{line}: {message}")

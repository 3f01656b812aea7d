"""Exceptions that are printed as a line: the user's mistakes, and writes that fail."""


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


class FailedWrite(OSError):
    """Something of a run could not be written: the disk is full or read-only, or the folder is gone.

    The message is one line: what, and why. Scripts print it without a traceback and exit with code 1. What had been
    written before is as it was.
    """


def first_line(error: Exception) -> str:
    """The first line of another library's message, at most 200 characters; its type if it says nothing."""
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__

"""Exceptions that are printed as a line: the user's mistakes, and writes that fail."""

import re

# Control characters but tab and line end, and marks that turn the writing direction.
_STEERING = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


class UserError(ValueError):
    """A mistake in what the user gave: a key, a value, a file.

    The message is one or two lines: what is wrong, where, and what to do. Scripts print it without a traceback and
    exit with code 2.

    Args:
        message: what to print.
        key: the setting at fault, if it is one, so that a script can add the file it stands in.
    """

    def __init__(self, message: str, key: str | None = None) -> None:
        super().__init__(harmless(message))  # it may quote a file
        self.key = key


class FailedWrite(OSError):
    """Something of a run could not be written: the disk is full or read-only, or the folder is gone.

    The message is one line: what, and why. Scripts print it without a traceback and exit with code 1. What had been
    written before is as it was.
    """


def harmless(text: str) -> str:
    """Text of others for a terminal: what would steer it is a replacement character."""
    return _STEERING.sub("\N{REPLACEMENT CHARACTER}", text)


class OutOfMemory(RuntimeError):
    """Memory was used up. The message is one line with the settings to lower; scripts exit with code 1."""


class JobFailed(RuntimeError):
    """A job of a sweep ended because something could not be written or memory was used up. The message is one line."""


def first_line(error: BaseException) -> str:
    """The first line of another library's message, at most 200 characters; its type if it says nothing."""
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__

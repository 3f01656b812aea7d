"""Exceptions that are printed as a line: the user's mistakes, and writes that fail."""

import re
from collections.abc import Mapping

# Invisible characters that change how the text after them is read: control characters except tab and line end, further
# line ends, marks that turn the writing direction, and byte order marks.
_STEERING = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ufeff]")

_SETTING = re.compile(r"\b(data\.[a-z_]+)(=?)")


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
    """Text of others for a terminal or a page: a replacement character stands for each that would disturb it."""
    return _STEERING.sub("\N{REPLACEMENT CHARACTER}", text)


def as_options(text: str, options: Mapping[str, str]) -> str:
    """A message that names settings as train.py takes them, for a script that has options instead.

    Args:
        text: the message, such as "... Name it: data.question=...".
        options: setting to option: "data.question" to "--question". A setting without one stays as it is; an empty
            option takes a setting away before its value.
    """

    def option(found: re.Match[str]) -> str:
        name, equals = found[1], found[2]
        return found[0] if name not in options else f"{options[name]} ".lstrip() if equals else options[name] or name

    return _SETTING.sub(option, text)


class OutOfMemory(RuntimeError):
    """Memory was used up. The message is one line with the settings to lower; scripts exit with code 1."""


class JobFailed(RuntimeError):
    """A job of a sweep ended because something could not be written or memory was used up. The message is one line."""


def first_line(error: BaseException) -> str:
    """The first line of another library's message, at most 200 characters; its type if it says nothing."""
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__

"""Exceptions that scripts print as one line: mistakes of the user, and failures of the machine."""

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

# Invisible characters that change how text is displayed: control characters except tab and newline, other line
# separators, marks that change the text direction, and byte order marks.
_CONTROL_CHARACTERS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ufeff]")

_SETTING = re.compile(r"\b(data\.[a-z_]+)(=?)")


class UserError(ValueError):
    """A mistake in the user's input: a setting, a value or a file.

    The message has one or two lines: what is wrong, where, and what to do. Scripts print it without a traceback and
    exit with code 2.

    Args:
        message: the text to print.
        key: the invalid setting, if there is one; a script then adds the file that sets it.
    """

    def __init__(self, message: str, key: str | None = None) -> None:
        super().__init__(sanitize(message))  # it may quote a file
        self.key = key


@contextmanager
def reading(path: Path, problem: str, key: str | None = None) -> Iterator[None]:
    """Turn the errors of reading and checking a file, which may come from someone else, into one line.

    Args:
        path: the file or folder.
        problem: what the message says about it, such as "is not a valid calibration".
        key: see `UserError`.

    Raises:
        UserError: anything in the block failed as it does on a file that is missing, damaged or of another form.
    """
    try:
        yield
    except (OSError, ValueError, TypeError, LookupError, OverflowError, AttributeError, RecursionError) as error:
        raise UserError(f"{path}: {problem}: {first_line(error)}", key) from None


class FailedWrite(OSError):
    """A file of a run could not be written: the disk is full or read-only, or the folder is gone.

    The message is one line: the file and the reason. Scripts print it without a traceback and exit with code 1. Files
    that were written before are unchanged.
    """


def sanitize(text: str) -> str:
    """Replace the control characters of untrusted text, so that a terminal or a page can display it safely."""
    return _CONTROL_CHARACTERS.sub("\N{REPLACEMENT CHARACTER}", text)


def did_you_mean(word: str, known: Iterable[str], cutoff: float = 0.6) -> str:
    """Return "; did you mean WORD?" for the closest of the known words; an empty text if none is close."""
    close = difflib.get_close_matches(word, list(known), 1, cutoff)
    return f"; did you mean {close[0]}?" if close else ""


def as_options(text: str, options: Mapping[str, str]) -> str:
    """Replace the settings that a message names by the options of a script.

    Args:
        text: the message, such as "... Name it: data.question=...".
        options: maps a setting to its option: "data.question" to "--question". Other settings are kept. An empty option
            removes a setting in front of its value.
    """

    def option(match: re.Match[str]) -> str:
        name, equals = match[1], match[2]
        return match[0] if name not in options else f"{options[name]} ".lstrip() if equals else options[name] or name

    return _SETTING.sub(option, text)


class OutOfMemory(RuntimeError):
    """The process ran out of memory. The message is one line with the settings to lower; scripts exit with code 1."""


class LostProcess(RuntimeError):
    """Another process of the run ended or does not answer. The message is one line; scripts exit with code 1."""


class JobFailed(RuntimeError):
    """A job of a sweep, or of Ray, failed. The message is one line; scripts exit with code 1."""


def first_line(error: BaseException) -> str:
    """The first line of an error message, at most 200 characters; the type of the error if the message is empty."""
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__

"""The one exception that means: the user can mend this."""


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


def first_line(error: Exception) -> str:
    """The first line of another library's message, at most 200 characters; its type if it says nothing."""
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__

"""The text of an answer while it is decoded."""

from collections.abc import Callable, Sequence

INCOMPLETE = "\N{REPLACEMENT CHARACTER}"
"""What stands for a character of which some bytes are missing."""


def before_stop(text: str, stops: Sequence[str]) -> tuple[str, bool]:
    """The text before the first of the stop texts, and whether there is one."""
    found = [place for stop in stops if (place := text.find(stop)) >= 0]
    return (text[: min(found)], True) if found else (text, False)


class TextStream:
    """Turns tokens into pieces of text that will not change any more.

    A piece ends before a character that is not complete, and before what may become a stop text or the end of the
    answer's template.

    Args:
        text_of: the text of the ids so far.
        stops: texts before which the answer ends.
        held_back: characters of the end that are kept until the answer is complete.
    """

    def __init__(self, text_of: Callable[[list[int]], str], stops: Sequence[str], held_back: int = 0) -> None:
        self.text_of, self.stops = text_of, stops
        self.held_back = max(held_back, *(len(stop) - 1 for stop in stops), 0)
        self.ids: list[int] = []
        self.sent = ""
        self.stopped = False
        """Whether a stop text has been found."""

    def add(self, token: int) -> str:
        """Add a token; return the new piece of text."""
        self.ids.append(token)
        text, self.stopped = before_stop(self.text_of(self.ids), self.stops)
        if not self.stopped:
            text = text.rstrip(INCOMPLETE)
            text = text[: len(text) - self.held_back] if self.held_back else text
        return self._new(text)

    def finish(self, text: str) -> str:
        """The rest of the whole text."""
        return self._new(text)

    def _new(self, text: str) -> str:
        if len(text) <= len(self.sent) or not text.startswith(self.sent):
            return ""
        piece = text[len(self.sent) :]
        self.sent = text
        return piece

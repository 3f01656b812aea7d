"""A JSON list read element by element, however long it is."""

import json
from collections.abc import Iterator
from typing import TextIO

from qa_lm.data.readers.problems import BadLine

BLOCK = 1 << 20
_SPACE = " \t\r\n"


class JsonStream:
    """Text from which the elements of one JSON list are taken, each with the line on which it begins.

    Args:
        file: the text, with its line ends as they are.
    """

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self._text = ""
        self._at = 0
        self._line = 1
        self._ended = False
        self._decoder = json.JSONDecoder()

    def is_list(self) -> bool:
        """Whether the first character that is no white space opens a list."""
        return self._peek() == "["

    def first_line(self) -> str:
        """The rest of the line on which the first value begins."""
        self._peek()
        while (end := self._text.find("\n", self._at)) < 0 and not self._ended:
            self._more()
        return self._text[self._at : end if end >= 0 else None]

    def elements(self) -> Iterator[tuple[int, object]]:
        """Line and value of each element.

        Raises:
            BadLine: what follows is no JSON.
        """
        self._take("[")
        if self._peek() == "]":
            self._at += 1
        else:
            while True:
                self._peek()
                line = self._line
                yield line, self._value()
                if self._peek() == "]":
                    self._at += 1
                    break
                self._take(",")
        if self._peek():
            raise BadLine(self._line, "not JSON: text after the end of the list", fatal=True)

    def _value(self) -> object:
        while True:
            try:
                value, end = self._decoder.raw_decode(self._text, self._at)
            except json.JSONDecodeError as error:
                # The value may go on beyond what was read so far.
                if self._more():
                    continue
                line = self._line + self._text.count("\n", self._at, error.pos)
                raise BadLine(line, f"not JSON: {error.msg}", fatal=True) from None
            except (ValueError, RecursionError) as error:
                raise BadLine(self._line, f"not JSON: {error}", fatal=True) from None
            if end == len(self._text) and self._more():
                continue  # a number may have been cut in two
            self._advance(end)
            return value

    def _take(self, character: str) -> None:
        if self._peek() != character:
            found = self._peek() or "the end of the file"
            raise BadLine(self._line, f"not JSON: expected {character} and found {found}", fatal=True)
        self._at += 1

    def _peek(self) -> str:
        """The next character that is no white space; empty at the end."""
        while True:
            at = self._at
            while at < len(self._text) and self._text[at] in _SPACE:
                at += 1
            self._advance(at)
            if at < len(self._text):
                return self._text[at]
            if not self._more():
                return ""

    def _advance(self, to: int) -> None:
        self._line += self._text.count("\n", self._at, to)
        self._at = to

    def _more(self) -> bool:
        """Read on: as much again as is waiting, so that a long value is not tried too often. False at the end."""
        if self._ended:
            return False
        self._text = self._text[self._at :]
        self._at = 0
        block = self._file.read(max(BLOCK, len(self._text)))
        self._ended = not block
        self._text += block
        return bool(block)

"""What is wrong with files of pairs: every bad line counted, the first ones kept with their places."""

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from qa_lm.errors import UserError

LISTED = 20
"""Bad lines that are listed; all are counted."""
PLACE = re.compile(r":(\d+): ")
"""The line, between file and reason."""
LONGEST = 500
"""Characters of a reason that are shown."""
SHOWN = 3
"""Places that are named of one kind."""


class BadLine(Exception):
    """A record that cannot be a pair, or, if `fatal`, a place after which the file cannot be read.

    Args:
        line: line of the file from 1, or the row of a Parquet file.
        reason: what is wrong and what to do.
        fatal: whether reading of the file ends here.
    """

    def __init__(self, line: int, reason: str, fatal: bool = False) -> None:
        super().__init__(reason)
        self.line, self.reason, self.fatal = line, reason, fatal


Record = Mapping[str, object]
"""Column names to values."""
Found = tuple[int, Record] | BadLine
"""What readers yield: a record with its line, or a bad line."""


@dataclass
class Remarks:
    """How a file was read where that is not a matter of course, and what in it looks wrong though it was read."""

    how: list[str] = field(default_factory=list)
    """Such as "UTF-16" and "';' as separator"."""
    left_out: dict[str, "Places"] = field(default_factory=dict)
    """Rows that hold no pair, such as empty ones, by kind."""
    doubts: dict[str, "Places"] = field(default_factory=dict)
    """What the user should look at, by kind."""

    def leave_out(self, kind: str, line: int) -> None:
        """Count a row that holds no pair."""
        self.left_out.setdefault(kind, Places()).add(line)

    def doubt(self, kind: str, line: int) -> None:
        """Count a place that looks wrong."""
        self.doubts.setdefault(kind, Places()).add(line)

    def in_words(self) -> str:
        """How the file was read, to be put behind its columns."""
        parts = [f"read with {', '.join(self.how)}"] if self.how else []
        if self.left_out:
            kinds = (
                f"{places.count:,} {kind}{'s' if places.count > 1 else ''} ({places.lines()})"
                for kind, places in self.left_out.items()
            )
            parts.append(f"left out: {', '.join(kinds)}")
        return "".join(f"; {part}" for part in parts)

    def warnings(self, file: str) -> list[str]:
        """What looks wrong, with the first places."""
        return [f"{kind}: {places.count:,}, at {places.at(file)}" for kind, places in self.doubts.items()]


@dataclass
class Places:
    """How many places there are, and the lines of the first ones."""

    count: int = 0
    first: list[int] = field(default_factory=list)

    def add(self, line: int) -> None:
        """Count one more."""
        self.count += 1
        if len(self.first) < SHOWN:
            self.first.append(line)

    def lines(self) -> str:
        """Such as "lines 3, 9, ..."."""
        return f"line{'s' if self.count > 1 else ''} {', '.join(map(str, self.first))}{self._more}"

    def at(self, file: str) -> str:
        """Such as "pairs.csv:3, pairs.csv:9, ..."."""
        return ", ".join(f"{file}:{line}" for line in self.first) + self._more

    @property
    def _more(self) -> str:
        return ", ..." if self.count > len(self.first) else ""


@dataclass
class Problems:
    """Bad lines of all files."""

    count: int = 0
    listed: list[str] = field(default_factory=list)
    kinds: Counter[str] = field(default_factory=Counter)
    """How many of each kind: the beginnings of their reasons, such as "the answer is empty"."""
    fatal: bool = False

    def add(self, file: str, bad: BadLine) -> None:
        """Count one, and keep it while there are few."""
        self.count += 1
        self.fatal |= bad.fatal
        self.kinds[re.split("[:;,(]", bad.reason)[0].strip()] += 1
        if len(self.listed) < LISTED:
            # One line that can be printed, whatever the file holds.
            reason = " ".join(bad.reason.split()).encode("utf-8", "backslashreplace").decode()
            self.listed.append(f"{file}:{bad.line}: {reason if len(reason) <= LONGEST else reason[:LONGEST] + '...'}")

    def error(self) -> UserError:
        """All of them as one error: the only one as it is, several as a list under their number, like ones together."""
        if self.count == 1:
            return UserError(self.listed[0])
        more = "" if self.count <= LISTED else f", the first {LISTED}"
        return UserError("\n".join([f"{self.count:,} bad lines{more}:", *_like_ones_together(self.listed)]))


def _like_ones_together(listed: list[str]) -> Iterator[str]:
    """A file whose columns have other names has the same fault in every line; it is told once."""
    lines: dict[tuple[str, str], list[str]] = {}
    for each in listed:
        file, line, reason = PLACE.split(each, maxsplit=1)
        lines.setdefault((file, reason), []).append(line)
    for (file, reason), (first, *others) in lines.items():
        yield f"{file}:{first}: {reason}"
        if others:
            yield f"the same in {'lines' if len(others) > 1 else 'line'} {', '.join(others)}"

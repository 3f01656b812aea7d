"""Problems in files of pairs: all bad lines are counted, and the first ones are listed with their places."""

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from qa_lm.errors import UserError

LISTED = 20
"""Maximum number of bad lines that are listed."""
PLACE = re.compile(r":(\d+): ")
"""The line, between file and reason."""
LONGEST = 500
"""Maximum number of characters of a reason."""
SHOWN = 3
"""Maximum number of places listed per kind."""


class BadLine(Exception):
    """An invalid record or, if `fatal`, a place after which the file cannot be read.

    Args:
        line: line of the file from 1, or row of a Parquet file.
        reason: what is wrong and what to do.
        fatal: whether reading the file stops here.
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
    """Notes on how a file was read, and on suspicious places that were read anyway."""

    how: list[str] = field(default_factory=list)
    """Properties that are not the default, such as "UTF-16" and "';' as separator"."""
    left_out: dict[str, "Places"] = field(default_factory=dict)
    """Rows without a pair, such as empty ones, by kind."""
    doubts: dict[str, "Places"] = field(default_factory=dict)
    """Places that the user should check, by kind."""

    def leave_out(self, kind: str, line: int) -> None:
        """Count a row without a pair."""
        self.left_out.setdefault(kind, Places()).add(line)

    def doubt(self, kind: str, line: int) -> None:
        """Count a suspicious place."""
        self.doubts.setdefault(kind, Places()).add(line)

    def in_words(self) -> str:
        """How the file was read, as a suffix for the description of its columns."""
        parts = [f"read with {', '.join(self.how)}"] if self.how else []
        if self.left_out:
            kinds = (
                f"{places.count:,} {kind}{'s' if places.count > 1 else ''} ({places.lines()})"
                for kind, places in self.left_out.items()
            )
            parts.append(f"left out: {', '.join(kinds)}")
        return "".join(f"; {part}" for part in parts)

    def warnings(self, file: str) -> list[str]:
        """The suspicious places: kind, count and the first places."""
        return [f"{kind}: {places.count:,}, at {places.at(file)}" for kind, places in self.doubts.items()]


@dataclass
class Places:
    """A number of places, with the lines of the first ones."""

    count: int = 0
    first: list[int] = field(default_factory=list)

    def add(self, line: int) -> None:
        """Count a place."""
        self.count += 1
        if len(self.first) < SHOWN:
            self.first.append(line)

    def lines(self) -> str:
        """The lines, such as "lines 3, 9, ..."."""
        return f"line{'s' if self.count > 1 else ''} {', '.join(map(str, self.first))}{self._more}"

    def at(self, file: str) -> str:
        """The places, such as "pairs.csv:3, pairs.csv:9, ..."."""
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
    """Number of bad lines by kind, which is the start of the reason, such as "the answer is empty"."""
    fatal: bool = False

    def add(self, file: str, bad: BadLine) -> None:
        """Count a bad line, and list it if fewer than `LISTED` are listed."""
        self.count += 1
        self.fatal |= bad.fatal
        self.kinds[re.split("[:;,(]", bad.reason)[0].strip()] += 1
        if len(self.listed) < LISTED:
            # Make it one printable line, for any content of the file.
            reason = " ".join(bad.reason.split()).encode("utf-8", "backslashreplace").decode()
            self.listed.append(f"{file}:{bad.line}: {reason if len(reason) <= LONGEST else reason[:LONGEST] + '...'}")

    def add_all(self, later: "Problems") -> None:
        """Add the bad lines of later files."""
        self.count += later.count
        self.listed = (self.listed + later.listed)[:LISTED]
        self.kinds.update(later.kinds)
        self.fatal |= later.fatal

    def error(self) -> UserError:
        """All bad lines as one error: a single one as it is, several as a list that groups equal reasons."""
        if self.count == 1:
            return UserError(self.listed[0])
        more = "" if self.count <= LISTED else f", the first {LISTED}"
        return UserError("\n".join([f"{self.count:,} bad lines{more}:", *_like_ones_together(self.listed)]))


def _like_ones_together(listed: list[str]) -> Iterator[str]:
    """Group lines with the same reason: a file with wrong column names has the same problem in every line."""
    lines: dict[tuple[str, str], list[str]] = {}
    for each in listed:
        file, line, reason = PLACE.split(each, maxsplit=1)
        lines.setdefault((file, reason), []).append(line)
    for (file, reason), (first, *others) in lines.items():
        yield f"{file}:{first}: {reason}"
        if others:
            yield f"the same in {'lines' if len(others) > 1 else 'line'} {', '.join(others)}"

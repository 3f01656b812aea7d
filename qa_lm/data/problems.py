"""What is wrong with files of pairs: every bad line counted, the first ones kept with their places."""

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from qa_lm.errors import UserError

LISTED = 20
"""Bad lines that are listed; all are counted."""
PLACE = re.compile(r":(\d+): ")
"""The line, between file and reason."""
LONGEST = 500
"""Characters of a reason that are shown."""


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

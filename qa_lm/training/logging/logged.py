"""`logger.jsonl`: what the logger beside TensorBoard was given, and the names by which services know the run."""

import json
import os
import re
from pathlib import Path
from typing import Any, NamedTuple

LOGGED = "logger.jsonl"
ID = re.compile(r"[0-9a-f]{32}")
LONGEST_LINE = 100_000
"""Characters; a longer one is none of ours."""


class Record(NamedTuple):
    """What `logger.jsonl` holds."""

    known: dict[tuple[str, str], tuple[str, bool]]
    """Kind and project to the run's id there, and whether that service keeps what it has."""
    rows: list[tuple[int, dict[str, float]]]
    """What was logged, by step."""


def read_record(path: Path) -> Record:
    """What was logged before; lines that are none of ours are passed over."""
    record = Record({}, [])
    if path.is_symlink() or not path.is_file():
        return record
    with path.open(encoding="utf-8", errors="replace") as file:
        while line := file.readline(LONGEST_LINE):
            try:
                found = json.loads(line)
            except (ValueError, RecursionError):
                continue  # a process was killed while it wrote
            match found:
                case {"step": int(step), "values": dict(values)} if all(
                    type(each) is float for each in values.values()
                ):
                    record.rows.append((step, values))
                case {"kind": str(kind), "project": str(project), "id": str(known), "lasting": bool(lasting)}:
                    if ID.fullmatch(known):
                        record.known[kind, project] = known, lasting
    return record


def append_record(path: Path, found: dict[str, Any]) -> None:
    """Add a line."""
    # Neither through a link nor into a pipe that nobody reads: someone else's run may hold one. The line before may be
    # half a one.
    careful = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)  # Windows has neither
    number = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | careful, 0o644)
    with os.fdopen(number, "w", encoding="utf-8") as file:
        file.write(f"\n{json.dumps(found)}")

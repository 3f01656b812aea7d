"""Files that are whole or not there: written beside their target, synced to the disk and renamed."""

import contextlib
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """An empty file beside the target to write into; when the block ends, it takes the target's place.

    A reader sees the old file or the new one, never half of one. If the block fails, the target stays as it is. The
    file is new and its name random, so no link that somebody put there is followed.
    """
    number, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    os.close(number)
    beside = Path(name)
    try:
        beside.chmod(0o644)
        yield beside
        sync(beside)
        os.replace(beside, path)
    finally:
        with contextlib.suppress(OSError):  # the folder is gone, or read-only
            beside.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Make a file, or the names in a folder, survive a power cut; Windows can do that for files alone."""
    is_folder = path.is_dir()
    with contextlib.suppress(OSError) if is_folder else contextlib.nullcontext():
        number = os.open(path, os.O_RDONLY if is_folder else os.O_RDWR)  # Windows syncs what is open for writing
        try:
            os.fsync(number)
        finally:
            os.close(number)


def write_text(path: Path, text: str) -> None:
    """Write as UTF-8, line ends as they are."""
    with replacing(path) as beside:
        beside.write_text(text, encoding="utf-8", newline="")


def write_json(path: Path, content: Any) -> None:
    """Write as indented JSON; nan and infinity, which JSON has not, become null."""
    write_text(path, json.dumps(_finite(content), indent=2, ensure_ascii=False) + "\n")


def write_jsonl(path: Path, records: list[dict[str, Any]]) -> None:
    """Write one JSON object per line."""
    write_text(path, "".join(json.dumps(_finite(record), ensure_ascii=False) + "\n" for record in records))


def _finite(content: Any) -> Any:
    if isinstance(content, float) and (content != content or content in (float("inf"), float("-inf"))):
        return None
    if isinstance(content, dict):
        return {key: _finite(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [_finite(value) for value in content]
    return content

"""Atomic writes: a file is written to a temporary file next to its target, synced to disk and renamed."""

import contextlib
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield an empty temporary file to write to, which replaces the target when the block ends.

    Readers see the old file or the new one, never a partial one. If the block fails, the target is unchanged. The
    temporary file is new and its name random, so that no existing link is followed.
    """
    number, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    os.close(number)
    temporary = Path(name)
    try:
        temporary.chmod(0o644)
        yield temporary
        sync(temporary)
        os.replace(temporary, path)
    finally:
        with contextlib.suppress(OSError):  # the folder was deleted, or is read-only
            temporary.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Flush a file, or the names in a folder, to disk. Windows supports this only for files."""
    is_folder = path.is_dir()
    with contextlib.suppress(OSError) if is_folder else contextlib.nullcontext():
        number = os.open(path, os.O_RDONLY if is_folder else os.O_RDWR)  # Windows syncs only files open for writing
        try:
            os.fsync(number)
        finally:
            os.close(number)


def write_text(path: Path, text: str) -> None:
    """Write text as UTF-8, without converting line endings."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="")


def write_json(path: Path, content: Any) -> None:
    """Write indented JSON. nan and infinity, which JSON lacks, become null."""
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

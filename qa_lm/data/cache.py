"""A cache of folders that can be rebuilt. A folder is written atomically, by one process at a time."""

import contextlib
import gc
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from filelock import FileLock

from qa_lm.errors import UserError
from qa_lm.run.atomic import sync

FORMAT = 1
"""Version of the cached files; increased when their format changes, so that older folders are not read."""
META = "meta.json"


def cache_folder() -> Path:
    """The cache folder: `$QA_LM_CACHE`, or `qa_lm` in the user's cache folder."""
    if folder := os.environ.get("QA_LM_CACHE"):
        return Path(folder)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "qa_lm"


def key_of(**parts: Any) -> str:
    """Hash of everything that determines a folder's content, 32 hexadecimal digits."""
    text = json.dumps(parts | {"format": FORMAT}, sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def cached_folder(root: Path, key: str, make: Callable[[Path], dict[str, Any]]) -> Path:
    """The folder of this key, created if it does not exist.

    It is written under a temporary name, flushed to disk and renamed, so no process sees a half-written folder. A lock
    lets other processes wait instead of creating it too.

    Args:
        root: folder for folders of this kind.
        key: name of the folder.
        make: fills an empty folder and returns the content of its meta.json; file sizes are added.

    Raises:
        UserError: the folder cannot be written.
    """
    folder = root / key
    if _is_whole(folder):
        return folder
    try:
        root.mkdir(parents=True, exist_ok=True)
        with FileLock(root / f".{key}.lock"):
            if not _is_whole(folder):
                _make(folder, make)
    except OSError as error:
        raise UserError(
            f"{root}: the prepared data cannot be written: {error.strerror or error}\n"
            "Choose another folder with data.cache=FOLDER, or turn the cache off with data.cache=off"
        ) from None
    return folder


def read_meta(folder: Path) -> dict[str, Any]:
    """Read what `make` returned."""
    return json.loads((folder / META).read_text(encoding="utf-8"))


def _make(folder: Path, make: Callable[[Path], dict[str, Any]]) -> None:
    for left in folder.parent.glob(f".{folder.name}.*"):
        if left.is_dir():  # left by a killed process: we hold the lock
            shutil.rmtree(left, ignore_errors=True)
    temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
    try:
        with _without_collector():
            meta = make(temporary)
        sizes = {file.name: file.stat().st_size for file in sorted(temporary.iterdir())}
        (temporary / META).write_text(json.dumps(meta | {"sizes": sizes}), encoding="utf-8")
        for file in temporary.iterdir():
            sync(file)
        temporary.chmod(0o755)
        shutil.rmtree(folder, ignore_errors=True)  # an existing folder is damaged
        os.replace(temporary, folder)
        sync(folder.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextlib.contextmanager
def _without_collector() -> Iterator[None]:
    """Disable the garbage collector: making a folder creates millions of small objects without reference cycles, and
    repeated collections took a third of the time (34 s instead of 24 s)."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def _is_whole(folder: Path) -> bool:
    """Whether every file has the size that meta.json records."""
    with contextlib.suppress(OSError, ValueError, KeyError, AttributeError):
        return all((folder / name).stat().st_size == size for name, size in read_meta(folder)["sizes"].items())
    return False

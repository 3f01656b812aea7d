"""Folders that can be made again: each is whole or not there, and made once however many processes want it."""

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
"""Raised when what is kept changes its form, so that an older folder is never read."""
META = "meta.json"


def cache_folder() -> Path:
    """Where the project keeps what it can make again: `$QA_LM_CACHE`, else the user's cache folder + `qa_lm`."""
    if folder := os.environ.get("QA_LM_CACHE"):
        return Path(folder)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "qa_lm"


def key_of(**parts: Any) -> str:
    """A fingerprint of everything that decides a folder's content, in 32 hexadecimal digits."""
    text = json.dumps(parts | {"format": FORMAT}, sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def made_folder(root: Path, key: str, make: Callable[[Path], dict[str, Any]]) -> Path:
    """The folder of this key, made if it is not there.

    It is written beside its place, put on disk and renamed, so a half-written one is never seen; a lock lets a second
    process wait for the first one's instead of making its own.

    Args:
        root: where folders of this kind stand.
        key: the folder's name.
        make: fills an empty folder and returns what goes into its meta.json, sizes of the files aside.

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
            "Choose another folder by data.cache=FOLDER, or data.cache=off to keep nothing"
        ) from None
    return folder


def read_meta(folder: Path) -> dict[str, Any]:
    """What `make` returned."""
    return json.loads((folder / META).read_text(encoding="utf-8"))


def _make(folder: Path, make: Callable[[Path], dict[str, Any]]) -> None:
    for left in folder.parent.glob(f".{folder.name}.*"):
        if left.is_dir():  # by a process that was killed: the lock is ours
            shutil.rmtree(left, ignore_errors=True)
    beside = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
    try:
        with _without_collector():
            meta = make(beside)
        sizes = {file.name: file.stat().st_size for file in sorted(beside.iterdir())}
        (beside / META).write_text(json.dumps(meta | {"sizes": sizes}), encoding="utf-8")
        for file in beside.iterdir():
            sync(file)
        beside.chmod(0o755)
        shutil.rmtree(folder, ignore_errors=True)  # what is there is damaged
        os.replace(beside, folder)
        sync(folder.parent)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


@contextlib.contextmanager
def _without_collector() -> Iterator[None]:
    """Millions of small objects come and go while a folder is made, in no reference cycles. Looking for some again and
    again, through all that torch keeps in memory, took a third of the time (measured: 34 s against 24 s)."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def _is_whole(folder: Path) -> bool:
    """Whether every file has the size that was noted when all had been written."""
    with contextlib.suppress(OSError, ValueError, KeyError, AttributeError):
        return all((folder / name).stat().st_size == size for name, size in read_meta(folder)["sizes"].items())
    return False

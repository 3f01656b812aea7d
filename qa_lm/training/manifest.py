"""The manifest of the checkpoints: the sha256 of each file, so that a damaged one is found before it is used.

A file and its line in another file cannot change in one step. So the manifest is written first and keeps the sums of
the files before: whatever moment a run is killed at, every whole file on the disk is in it.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

from qa_lm.training.run_folder import write_json

MANIFEST = "manifest.json"
KEPT = 3
"""Sums kept for a name: of the file that comes, of the one that it replaces, and of the one before."""


def sha256_of(path: Path) -> str:
    """The file's sha256, read in blocks."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def announce(folder: Path, name: str, digest: str, step: int) -> None:
    """Note the sum of a file that is about to be there.

    Args:
        folder: the checkpoints' folder.
        name: the name that the file will have.
        digest: its sha256.
        step: the optimizer step that it holds.
    """
    known = read_manifest(folder) or {}
    before = [each for each in known.get(name, []) if each["sha256"] != digest]
    known[name] = [{"sha256": digest, "step": step}, *before][:KEPT]
    write_json(folder / MANIFEST, known)


def read_manifest(folder: Path) -> dict[str, list[dict[str, Any]]] | None:
    """Name to sums, the newest first; None if there is no manifest that can be read."""
    try:
        found = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        # Whatever else it may hold: only this is looked at.
        return {
            str(name): [{"sha256": str(each["sha256"]), "step": int(each["step"])} for each in sums]
            for name, sums in found.items()
        }
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None


def is_sound(path: Path) -> bool | None:
    """Whether the file is one that was written whole here; None if there is no manifest to tell."""
    known = read_manifest(path.parent)
    if known is None:
        return None
    return sha256_of(path) in {each["sha256"] for sums in known.values() for each in sums}

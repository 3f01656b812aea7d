"""Find the local folder of a pretrained model: a transformers folder, a name on the hub, or a GGUF file."""

import hashlib
import json
import re
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from qa_lm.errors import UserError, first_line

KEY = "model.path"
HUB_NAME = re.compile(r"[\w.-]+(/[\w.-]+)?")
HUB_FILES = ("*.json", "*.safetensors", "*.txt", "*.model", "*.jinja", "README.md")
"""Files to download: weights as safetensors, settings, vocabularies and the model card, and no code."""
HUB_TIMEOUT = 5
"""Seconds to wait for the hub's first answer."""


@dataclass(frozen=True)
class Base:
    """A pretrained model on this machine."""

    name: str
    """What `model.path` names."""
    folder: Path
    """Its transformers folder."""

    def sha256(self) -> str:
        """sha256 of its weights and its configuration, in hexadecimal."""
        digest = hashlib.sha256()
        for file in [self.folder / "config.json", *sorted(self.folder.glob("*.safetensors"))]:
            with file.open("rb") as content:
                digest.update(hashlib.file_digest(content, "sha256").digest())
        return digest.hexdigest()


def check_place(path: str, revision: str | None) -> None:
    """Check what can be checked without the hub, in milliseconds.

    Raises:
        UserError: there is no such folder or file, or it holds no model.
    """
    place = Path(path).expanduser()
    if revision is not None and place.exists():
        raise UserError(f"model.revision={revision}: has no effect here: it belongs to a name on the hub", KEY)
    if place.is_dir():
        _check_folder(place)
    elif place.is_file() and place.suffix == ".gguf":
        check_gguf(place)
    elif place.is_file():
        raise UserError(f"{KEY}={path}: give a transformers folder, a name on the hub, or a .gguf file", KEY)
    elif not place.exists() and not _may_be_hub_name(path):
        raise UserError(f"{KEY}={path}: no such folder or file", KEY)


def check_gguf(path: Path) -> None:
    """Check what can be checked before torch is imported: the packages, and that the file exists.

    Raises:
        UserError: see above.
    """
    missing = [name for name in ("gguf", "accelerate") if find_spec(name) is None]
    if missing:
        raise UserError(f"{path}: needs {' and '.join(missing)}: pip install 'qa_lm[gguf]'; or give a folder")
    if not path.is_file():
        raise UserError(f"{path}: no such file")


def find_base(path: str, revision: str | None, cache: Path) -> Base:
    """Return the model of a folder; download it from the hub, or convert a GGUF file, if that was not done before.

    Args:
        path: a folder, a name on the hub, or a GGUF file.
        revision: branch, tag or commit of a model of the hub; None for its main branch.
        cache: where converted GGUF files are kept.

    Raises:
        UserError: it cannot be found or downloaded, or holds no safetensors.
    """
    check_place(path, revision)
    place = Path(path).expanduser()
    if place.is_file():
        from qa_lm.data.pretrained.gguf_file import gguf_folder

        return Base(path, gguf_folder(place, cache))
    folder = place if place.is_dir() else _downloaded(path, revision)
    _check_folder(folder)
    return Base(path, folder)


def _may_be_hub_name(path: str) -> bool:
    return HUB_NAME.fullmatch(path) is not None and not path.startswith(".") and not path.endswith(".gguf")


def _downloaded(name: str, revision: str | None) -> Path:
    from huggingface_hub import snapshot_download

    try:
        return Path(
            snapshot_download(name, revision=revision, allow_patterns=list(HUB_FILES), etag_timeout=HUB_TIMEOUT)
        )
    except Exception as error:  # errors of many libraries: no network, no such name, no permission
        reason = first_line(error).partition(". ")[0]
        raise UserError(
            f"{KEY}={name}: no such folder, and the Hugging Face hub does not give it: {reason}\n"
            "Give a folder with config.json, model.safetensors and tokenizer.json instead: model.path=FOLDER",
            KEY,
        ) from None


def _check_folder(folder: Path) -> None:
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{KEY}={folder}: holds no readable config.json: {first_line(error)}", KEY) from None
    if not isinstance(config, dict) or "model_type" not in config:
        raise UserError(f"{folder / 'config.json'}: names no model_type", KEY)
    if "quantization_config" in config:
        raise UserError(f"{KEY}={folder}: is quantised and cannot be trained; give the original weights", KEY)
    if not any(folder.glob("*.safetensors")):
        other = next((file.name for pattern in ("*.bin", "*.pt", "*.gguf") for file in folder.glob(pattern)), None)
        found = f" (only {other})" if other else ""
        raise UserError(f"{KEY}={folder}: holds no weights as safetensors{found}; convert them first", KEY)

"""A sentence encoder, by sentence-transformers: unit vectors of texts whose dot product is their similarity.

A run keeps its encoder in model/encoder/, so that it answers without a network. Only safetensors and JSON are read, and
only modules that run no code of the folder. An encoder of the hub is downloaded first, and then checked like a folder.
"""

import json
from collections.abc import Sequence
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from qa_lm.errors import UserError, first_line, reading

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

FOLDER = "encoder"
"""The folder of the encoder in a model's folder."""
MODULES = ("Transformer", "Pooling", "Normalize")
"""Modules that an encoder may consist of."""
PACKAGE = "sentence_transformers."
BATCH = 64


class Encoder(Protocol):
    """Maps texts to vectors."""

    def load(self) -> "Encoder":
        """Load what it needs."""

    def vectors(self, texts: Sequence[str]) -> np.ndarray:
        """Return unit vectors, (texts, dimensions), float32."""

    def save(self, folder: Path) -> None:
        """Write what it needs into a model's folder."""


class SentenceEncoder:
    """Texts to unit vectors. It is loaded on first use.

    Args:
        place: a folder, or a name on the Hugging Face hub.
    """

    def __init__(self, place: str) -> None:
        self.place = place

    def load(self) -> "SentenceEncoder":
        """Load the encoder now, and return it.

        Raises:
            UserError: sentence-transformers is not installed, the encoder does not exist or cannot be loaded, or its
                folder would run code.
        """
        assert self._model
        return self

    @cached_property
    def _model(self) -> "SentenceTransformer":
        check_encoder(self.place)
        from sentence_transformers import SentenceTransformer  # takes seconds

        try:
            folder = _folder(self.place)
            model = SentenceTransformer(
                str(folder),
                device="cpu",
                trust_remote_code=False,
                local_files_only=True,
                model_kwargs={"use_safetensors": True, "dtype": "float32"},
            )
        except UserError:
            raise
        except Exception as error:  # damaged files and the hub raise errors of many libraries
            raise UserError(
                f"evaluation.encoder: {self.place} cannot be loaded: {first_line(error)}", "evaluation.encoder"
            ) from None
        if any(type(module).__name__ not in MODULES for module in model):
            raise UserError(f"evaluation.encoder: {self.place} has modules other than {', '.join(MODULES)}")
        return model

    def vectors(self, texts: Sequence[str]) -> np.ndarray:
        """Return unit vectors, (texts, dimensions), float32."""
        if not texts:
            return np.zeros((0, 0), np.float32)
        vectors: np.ndarray = self._model.encode(
            list(texts), batch_size=BATCH, normalize_embeddings=True, show_progress_bar=False
        )
        return vectors.astype(np.float32)

    def save(self, folder: Path) -> None:
        """Write the encoder into a model's folder, as safetensors and JSON."""
        self._model.save_pretrained(str(folder / FOLDER), create_model_card=False, safe_serialization=True)


def _names_code(config: object) -> bool:
    """Whether a part of a configuration names a class, or an attention kernel of the hub ("owner/name")."""
    if isinstance(config, list):
        return any(map(_names_code, config))
    return isinstance(config, dict) and any(
        key == "auto_map" or (key.endswith("_implementation") and "/" in json.dumps(value)) or _names_code(value)
        for key, value in config.items()
    )


def _folder(place: str) -> Path:
    """The folder of an encoder, downloaded if it is on the hub."""
    folder = Path(place).expanduser()
    if folder.is_dir():
        return folder
    from huggingface_hub import snapshot_download

    # By itself sentence-transformers tries each of its files again for a minute if there is no network.
    folder = Path(snapshot_download(place, allow_patterns=["*.json", "*.txt", "*.safetensors"], etag_timeout=5))
    _check(folder)
    return folder


def load_encoder(place: str | None) -> SentenceEncoder | None:
    """Load the encoder that `evaluation.encoder` names; None if it is null.

    Raises:
        UserError: see `SentenceEncoder.load`.
    """
    return SentenceEncoder(place).load() if place else None


def is_installed() -> bool:
    """Whether sentence-transformers is installed."""
    return find_spec("sentence_transformers") is not None


def check_encoder(place: str) -> None:
    """Check what can be checked before torch is imported: the package, and the folder if it is one.

    Raises:
        UserError: see `SentenceEncoder.load`.
    """
    if not is_installed():
        raise UserError(
            "evaluation.encoder: needs sentence-transformers: pip install 'qa_lm[encoder]'", "evaluation.encoder"
        )
    if Path(place).expanduser().is_dir():
        _check(Path(place).expanduser())
    elif place.startswith((".", "/", "~")) or place.count("/") > 1:
        raise UserError(f"evaluation.encoder: no such folder: {place}", "evaluation.encoder")


def _check(folder: Path) -> None:
    """Refuse a folder that is not an encoder, or that names code of its own.

    Raises:
        UserError: see above.
    """
    with reading(folder, "is not a sentence encoder", "evaluation.encoder"):
        modules = json.loads((folder / "modules.json").read_text(encoding="utf-8"))
        types = [module["type"] for module in modules]
        inside = all((folder / module["path"]).resolve().is_relative_to(folder.resolve()) for module in modules)
        configs = [json.loads(path.read_text(encoding="utf-8")) for path in folder.rglob("*config*.json")]
        foreign = any(map(_names_code, configs)) or any(
            not (str(each).startswith(PACKAGE) and str(each).split(".")[-1] in MODULES) for each in types
        )
    if foreign or not inside:
        raise UserError(
            f"{folder}: is refused: its modules must be {', '.join(MODULES)} of sentence-transformers, and nothing in "
            "it may name code",
            "evaluation.encoder",
        )

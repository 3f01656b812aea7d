"""A sentence encoder, by sentence-transformers: unit vectors of texts whose dot product is their similarity.

A run keeps its encoder in model/encoder/, so that it answers without a network. Only safetensors and JSON are read, and
only modules that run no code of the folder.
"""

import json
import logging
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from qa_lm.errors import UserError, first_line

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

FOLDER = "encoder"
"""The folder of the encoder in a model's folder."""
MODULES = ("Transformer", "Pooling", "Normalize")
"""Modules that an encoder may consist of."""
PACKAGE = "sentence_transformers."
BATCH = 64


class SentenceEncoder:
    """Texts to unit vectors.

    Args:
        model: an encoder of sentence-transformers.
    """

    def __init__(self, model: "SentenceTransformer") -> None:
        self._model = model

    @classmethod
    def load(cls, place: str) -> "SentenceEncoder":
        """Load an encoder from a folder, or by its name on the Hugging Face hub.

        Raises:
            UserError: sentence-transformers is not installed, the encoder does not exist or cannot be loaded, or its
                folder would run code.
        """
        check_encoder(place)
        folder = Path(place).expanduser()
        from sentence_transformers import SentenceTransformer  # takes seconds

        for name in ("huggingface_hub", "sentence_transformers"):  # each attempt without a network is a warning
            logging.getLogger(name).setLevel(logging.ERROR)
        try:
            model = SentenceTransformer(
                str(folder) if folder.is_dir() else place,
                device="cpu",
                trust_remote_code=False,
                local_files_only=folder.is_dir(),
                model_kwargs={"use_safetensors": True, "dtype": "float32"},
            )
        except Exception as error:  # damaged files and the hub raise errors of many libraries
            raise UserError(
                f"evaluation.encoder: {place} cannot be loaded: {first_line(error)}", "evaluation.encoder"
            ) from None
        if any(type(module).__name__ not in MODULES for module in model):
            raise UserError(f"evaluation.encoder: {place} has modules other than {', '.join(MODULES)}")
        return cls(model)

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


def load_encoder(place: str | None) -> SentenceEncoder | None:
    """Load the encoder that `evaluation.encoder` names; None if it is null.

    Raises:
        UserError: see `SentenceEncoder.load`.
    """
    return SentenceEncoder.load(place) if place else None


def check_encoder(place: str) -> None:
    """Check what can be checked before torch is imported: the package, and the folder if it is one.

    Raises:
        UserError: see `SentenceEncoder.load`.
    """
    if find_spec("sentence_transformers") is None:
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
    try:
        modules = json.loads((folder / "modules.json").read_text(encoding="utf-8"))
        types = [module["type"] for module in modules]
        inside = all((folder / module["path"]).resolve().is_relative_to(folder.resolve()) for module in modules)
        configs = [json.loads(path.read_text(encoding="utf-8")) for path in folder.rglob("*config*.json")]
        foreign = any(map(_names_code, configs)) or any(
            not (str(each).startswith(PACKAGE) and str(each).split(".")[-1] in MODULES) for each in types
        )
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        raise UserError(f"{folder}: is not a sentence encoder: {first_line(error)}", "evaluation.encoder") from None
    if foreign or not inside:
        raise UserError(
            f"{folder}: is refused: its modules must be {', '.join(MODULES)} of sentence-transformers, and nothing in "
            "it may name code",
            "evaluation.encoder",
        )

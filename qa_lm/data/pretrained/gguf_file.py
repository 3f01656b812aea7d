"""Convert a GGUF file to a transformers folder, once.

Quantized weights stay rounded to what the file holds: a folder with safetensors is the better start if there is one.
"""

import contextlib
import hashlib
import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qa_lm.data.cache import cached_folder, key_of
from qa_lm.data.pretrained.gguf_tokenizer import GgufTokenizer, tokenizer_of
from qa_lm.data.pretrained.gguf_weights import check_architecture, load_model
from qa_lm.data.pretrained.place import check_gguf
from qa_lm.errors import UserError, first_line

if TYPE_CHECKING:
    from gguf import GGUFReader
    from transformers import PreTrainedModel

CONVERTER = 1
"""Version of the conversion; increased when its result changes, so that older folders are not read."""


def gguf_folder(path: Path, cache: Path) -> Path:
    """Convert a GGUF file to a transformers folder in the cache, unless the folder exists.

    The folder has config.json, model.safetensors in float32, tokenizer.json, tokenizer_config.json and
    generation_config.json. tokenizer_config.json has the chat template, if the file has one, and `add_bos_token`, which
    says whether the model expects each text to begin with BOS.

    Args:
        path: the file.
        cache: the cache folder.

    Raises:
        UserError: a package is missing, or the file cannot be read or converted.
    """
    check_gguf(path)
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}") from None
    key = key_of(kind="gguf", file=digest, converter=CONVERTER)
    return cached_folder(cache / "gguf", key, lambda folder: _convert(path, folder))


def _convert(path: Path, folder: Path) -> dict[str, Any]:
    reader = _read(path)
    try:
        fields = {name: field.contents() for name, field in reader.fields.items()}
    except ValueError as error:  # text that is not UTF-8
        raise UserError(f"{path}: is not a valid GGUF file: {first_line(error)}") from None
    check_architecture(fields, path)
    tokenizer = tokenizer_of(fields, path)
    print(f"model: converting {path.name} ({path.stat().st_size / 1e6:,.0f} MB) to safetensors, once", flush=True)
    with contextlib.redirect_stderr(io.StringIO()):  # progress bars that no setting turns off
        _save(load_model(path, fields, reader), tokenizer, folder)
    licence = fields.get("general.license")
    return {"file": path.name} | ({"license": licence} if licence else {})


def _read(path: Path) -> "GGUFReader":
    """Read the fields of the file, and where its tensors are.

    Raises:
        UserError: the file is not a GGUF file, or is cut off.
    """
    import gguf

    class Reader(gguf.GGUFReader):
        """Raises at the end of the file; gguf would read on, through arrays as long as a damaged file claims."""

        def _get(self, offset: int, dtype: Any, count: int = 1, override_order: Any = None) -> Any:
            if offset + gguf.np.dtype(dtype).itemsize * int(count) > len(self.data):
                raise ValueError("it is cut off")
            return super()._get(offset, dtype, count, override_order)

    try:
        return Reader(path)
    except Exception as error:  # gguf checks little, so damage raises errors of many kinds
        raise UserError(f"{path}: is not a valid GGUF file: {first_line(error)}") from None


def _save(model: "PreTrainedModel", tokenizer: GgufTokenizer, folder: Path) -> None:
    from safetensors import SafetensorError
    from transformers import GenerationConfig

    ends: int | list[int] = tokenizer.eos_ids if len(tokenizer.eos_ids) > 1 else tokenizer.eos_ids[0]
    model.config.eos_token_id = ends
    model.generation_config = GenerationConfig(
        do_sample=False,
        eos_token_id=ends,
        bos_token_id=model.config.bos_token_id,
        pad_token_id=tokenizer.tokenizer.token_to_id(tokenizer.pad_token),
    )
    tokenizer.write(folder, model.config.max_position_embeddings)
    try:
        model.save_pretrained(folder)
    except SafetensorError as error:  # such as a full disk
        raise OSError(first_line(error)) from None
    for file in folder.iterdir():  # safetensors creates files that only their owner can read
        file.chmod(0o644)

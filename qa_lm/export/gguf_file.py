"""Write a model as a GGUF file, with a Modelfile for Ollama next to it."""

import errno
import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from torch import nn

from qa_lm.errors import UserError
from qa_lm.export.gguf_model import check_model, model_fields, model_tensors
from qa_lm.export.gguf_prompt import chat_template, modelfile
from qa_lm.export.gguf_tokens import GgufTokens
from qa_lm.export.gguf_types import GgufType, TypedWeights
from qa_lm.export.source import Source
from qa_lm.run.atomic import replacing, write_text

MODELFILE = "Modelfile"
GREEDY = {"general.sampling.temp": 0.0, "general.sampling.top_k": 1, "general.sampling.penalty_repeat": 1.0}
"""Fields by which llama.cpp decodes greedily unless a request says otherwise."""


@dataclass(frozen=True)
class GgufFile:
    """A written file."""

    path: Path
    type: GgufType
    formats: Counter[str]
    """Number of matrices by their number format."""
    kept: int
    """Number of matrices that could not be quantised."""


def write_gguf(source: Source, path: Path, kind: GgufType) -> GgufFile:
    """Write the file, and the Modelfile. Both writes are atomic.

    Raises:
        UserError: llama.cpp does not compute such a model, or splits text in another way; the message says why.
    """
    model = source.answerer.model
    weights = TypedWeights(kind)
    try:
        check_model(model.config)
        tokens = gguf_tokens(source)
        fields = _fields(source, tokens, kind)
        with replacing(path) as temporary:
            _write(temporary, model.config.model_type, fields, model, weights)
    except UserError as error:
        raise UserError(f"{source.folder}: cannot be written as GGUF: {error}") from None
    except OSError as error:  # numpy reports a full disk without its number
        number = error.errno or errno.ENOSPC
        raise OSError(number, os.strerror(number), str(path)) from None
    write_text(path.with_name(MODELFILE), modelfile(source, tokens, path.name, source.answer_limit))
    return GgufFile(path, kind, weights.counts, weights.kept)


def gguf_tokens(source: Source) -> GgufTokens:
    """The tokenizer of a model for its file."""
    model, template = source.answerer.model, source.answerer.template
    bos = source.bos_id
    return GgufTokens(
        content=source.tokenizer_content,
        rows=cast(nn.Embedding, model.get_input_embeddings()).weight.shape[0],
        end_ids=source.end_ids,
        bos_id=bos,
        add_bos=bos is not None and template.before[:1] == (bos,),
    )


def _fields(source: Source, tokens: GgufTokens, kind: GgufType) -> dict[str, Any]:
    import gguf

    config: Any = source.answerer.model.config
    fields: dict[str, Any] = {f"{config.model_type}.{name}": value for name, value in model_fields(config).items()}
    kinds = {GgufType.f32: "ALL_F32", **{each: f"MOSTLY_{each.upper()}" for each in GgufType if each != "f32"}}
    fields |= {
        "general.name": source.name,
        "general.file_type": int(gguf.LlamaFileType[kinds[kind]]),
        "general.quantization_version": gguf.GGML_QUANT_VERSION,
        **GREEDY,
    }
    return fields | tokens.fields() | {"tokenizer.chat_template": chat_template(source, tokens)}


def _write(path: Path, architecture: str, fields: dict[str, Any], model: Any, weights: TypedWeights) -> None:
    import gguf

    writer = gguf.GGUFWriter(path, architecture)
    add: dict[type, Any] = {
        str: writer.add_string,
        bool: writer.add_bool,
        int: writer.add_uint32,
        float: writer.add_float32,
    }
    for name, value in fields.items():
        add.get(type(value), writer.add_array)(name, value)
    for name, weight in model_tensors(model):
        converted, kind = weights.converted(name, weight)
        writer.add_tensor(name, converted, raw_dtype=kind)
    try:
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
    finally:
        writer.close()

"""Model folders of tiny models, as a run writes them."""

import json
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from qa_lm.data.encoding import PromptTemplate
from qa_lm.data.tokenizer import TextTokenizer
from qa_lm.export.source import Source
from qa_lm.inference.export import export_model
from tests.data.pretrained.gguf_writing import EOS, tiny_model, tiny_tokenizer


def model_folder_of(
    folder: Path,
    architecture: str = "llama",
    template: PromptTemplate | None = None,
    tokenizer: Tokenizer | None = None,
    **changes: Any,
) -> Path:
    """Write a model with random weights into a new folder."""
    own = TextTokenizer(tokenizer or tiny_tokenizer(), EOS)
    export_model(tiny_model(architecture, **changes), own, template or PromptTemplate(), [], folder)
    return folder


def source_of(folder: Path, *given: Any, **changes: Any) -> Source:
    """The same, ready for an export."""
    return Source.load(model_folder_of(folder, *given, **changes))


def changed_json(path: Path, **changes: Any) -> None:
    """Change entries of a JSON file."""
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))

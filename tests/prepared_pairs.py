"""Pairs in a file, prepared."""

import json
import random
from pathlib import Path
from typing import Any

import pytest

from qa_lm.config.schema import DataConfig, TokenizerConfig
from qa_lm.data.prepare import PreparedData, prepare

GPT2 = TokenizerConfig("gpt2")


def jsonl(path: Path, pairs: list[tuple[str, str]]) -> Path:
    path.write_text("".join(json.dumps({"question": q, "answer": a}) + "\n" for q, a in pairs))
    return path


@pytest.fixture
def path(tmp_path):
    words = random.Random(0)
    return jsonl(tmp_path / "pairs.jsonl", [(f"What is {words.randbytes(8).hex()}?", f"It is {i}.") for i in range(50)])


def prepared(path: Path, root: Path | str, tokenizer: TokenizerConfig = GPT2, **changes: Any) -> PreparedData:
    return prepare(DataConfig(path=str(path), cache=str(root), **changes), tokenizer, 256)


def folders(root: Path) -> set[str]:
    return {
        f"{kind.name}/{made.name}"
        for kind in root.iterdir()
        for made in kind.iterdir()
        if not made.name.startswith(".")
    }

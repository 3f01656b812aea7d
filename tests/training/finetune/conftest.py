"""Fixtures of the tests of pretrained starts."""

import json
from pathlib import Path

import pytest

from tests.training.finetune.test_pretrained import PAIRS


@pytest.fixture(scope="session")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of pairs that the pretrained model does not know."""
    path = tmp_path_factory.mktemp("pairs") / "colours.jsonl"
    path.write_text("".join(json.dumps(pair) + "\n" for pair in PAIRS), encoding="utf-8")
    return path

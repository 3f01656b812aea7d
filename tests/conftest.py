"""Shared by the tests: no hub, and small runs that many tests look at."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"  # before transformers is imported

import pytest
import torch

from qa_lm.config import DataConfig, ModelConfig, TokenizerConfig, TrainConfig
from qa_lm.data.encoding import PromptTemplate
from qa_lm.data.tokenizer import TextTokenizer, gpt2_tokenizer
from qa_lm.training.train import TrainingResult, train

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="session")
def gpt2() -> TextTokenizer:
    return gpt2_tokenizer()


@pytest.fixture(scope="session")
def template() -> PromptTemplate:
    return PromptTemplate()


def small_config(**changes: object) -> TrainConfig:
    """Ten pairs, a BPE of its own and a model of 0.1 million parameters: a run of about a second."""
    config = TrainConfig(
        data=DataConfig(builtin="tutorial"),
        tokenizer=TokenizerConfig(kind="bpe", vocab_size=300),
        model=ModelConfig(hidden_size=64, layers=2, heads=2),
        trainer={"max_epochs": 3, "accelerator": "cpu", "num_sanity_val_steps": 0},
    )
    config.optimizer.lr = 3e-3
    for key, value in changes.items():
        node, *rest = key.split("__")
        if node == "trainer":
            config.trainer[rest[0]] = value
        elif rest:
            setattr(getattr(config, node), rest[0], value)
        else:
            setattr(config, node, value)
    return config


@pytest.fixture(scope="session")
def small_run(tmp_path_factory: pytest.TempPathFactory) -> TrainingResult:
    """A finished run, long enough to have learnt most of its pairs."""
    return train(small_config(trainer__max_epochs=25, early_stopping__patience=None), tmp_path_factory.mktemp("run"))


Script = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def script(tmp_path: Path) -> Script:
    """Runs a script in an empty folder, as a user would: script("train.py", "seed=1")."""

    def run(name: str, *arguments: str, stdin: str = "") -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, str(ROOT / "scripts" / name), *arguments]
        return subprocess.run(command, cwd=tmp_path, input=stdin, capture_output=True, text=True, timeout=300)

    return run


def weights(result: TrainingResult) -> dict[str, torch.Tensor]:
    """The last weights of a run."""
    return torch.load(result.folder / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]

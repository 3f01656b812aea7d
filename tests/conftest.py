"""Shared by the tests: no hub, and small runs that many tests look at."""

import gc
import os
import signal
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"  # before transformers is imported
os.environ["HF_DATASETS_OFFLINE"] = "1"

import pytest
import torch

from qa_lm.config.enums import Weights
from qa_lm.config.schema import DataConfig, ModelConfig, TokenizerConfig, TrainConfig
from qa_lm.data.batches.store import EncodedPairs, write_store
from qa_lm.data.cache import cache_folder, cached_folder
from qa_lm.data.encoding import PromptTemplate
from qa_lm.data.gpt2_vocabulary import load_gpt2_tokenizer
from qa_lm.data.pairs import BUILTIN, Pair
from qa_lm.data.readers.reading import PairReader, Reading, Source, file_sources
from qa_lm.data.table import PairTable, chunks_of, write_table
from qa_lm.data.tokenizer import TextTokenizer, gpt2_tokenizer
from qa_lm.training.train import TrainingResult, train
from tests.scripts_started import ROOT, Scripts

# A shell's background jobs ignore Ctrl-C, and what tests start would inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

gc.freeze()  # what was imported stays; looking through it again and again costs a tenth of the tests' time

# Tests prepare data in a cache of their own, with the user's copy of GPT-2's vocabulary.
load_gpt2_tokenizer()
_CACHE = tempfile.TemporaryDirectory(prefix="qa_lm.tests.")
(Path(_CACHE.name) / "gpt2").symlink_to(cache_folder() / "gpt2")
os.environ["QA_LM_CACHE"] = _CACHE.name
SHARED_DATA = ROOT.parent / "shared" / "data"
"""Real files of pairs; a clone may lack them."""


@pytest.fixture(autouse=True)
def signals_as_before() -> Iterator[None]:
    """No test leaves a handler of signals behind: it would decide how the processes of later tests end."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    left = {number: signal.signal(number, handler) for number, handler in before.items()}
    assert left == before


def read(path: Path | str, **how: object) -> list[Pair]:
    """All pairs of a file or glob."""
    return [pair for _, _, pair in PairReader(file_sources(str(path), "data.path"), Reading(**how)).pairs()]  # type: ignore[arg-type]


def builtin(name: str) -> list[Pair]:
    """The pairs shipped under this name."""
    return [pair for _, _, pair in PairReader([Source(name, BUILTIN[name])], Reading()).pairs()]


def encoded(
    pairs: list[Pair], tokenizer: TextTokenizer, template: PromptTemplate, root: Path, limit: int = 256
) -> EncodedPairs:
    """A store of these pairs."""
    return EncodedPairs(
        cached_folder(
            root, f"encoded-{uuid.uuid4()}", lambda folder: write_store(folder, [pairs], tokenizer, template)
        ),
        limit,
    )


def table_of(pairs: list[Pair], root: Path) -> PairTable:
    """A table of these pairs, from lines 1, 2, ... of "pairs"."""
    placed = ((0, line, pair) for line, pair in enumerate(pairs, start=1))
    return PairTable(
        cached_folder(root, f"pairs-{uuid.uuid4()}", lambda folder: write_table(folder, chunks_of(placed))), ["pairs"]
    )


@pytest.fixture(scope="session")
def gpt2() -> TextTokenizer:
    return gpt2_tokenizer()


@pytest.fixture(scope="session")
def template() -> PromptTemplate:
    return PromptTemplate()


TENSORBOARD = {"tensorboard": {"_target_": "qa_lm.training.logging.tensorboard.EventsLogger"}}


def small_config(**changes: object) -> TrainConfig:
    """Ten pairs, a BPE of its own and a model of 0.1 million parameters: a run of about a second."""
    config = TrainConfig(
        data=DataConfig(path="tutorial", split="shuffle"),
        tokenizer=TokenizerConfig(kind="bpe", vocab_size=300),
        model=ModelConfig(hidden_size=64, layers=2, heads=2),
        loggers=TENSORBOARD,
        trainer={"max_epochs": 3, "accelerator": "cpu", "num_sanity_val_steps": 0, "precision": "32-true"},
    )
    config.optimizer.lr = 3e-3
    config.evaluation.max_new_tokens = 1  # and so as long as the longest true answer
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
    """A finished run whose best epoch, which model/ holds, came long before its last."""
    return train(small_config(trainer__max_epochs=25, early_stopping__patience=None), tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="session")
def learnt_run(tmp_path_factory: pytest.TempPathFactory) -> TrainingResult:
    """A finished run whose model/ has learnt most of its pairs."""
    config = small_config(trainer__max_epochs=60, early_stopping__patience=None, export_weights=Weights.last)
    config.evaluation.max_new_tokens = 64  # as scripts/evaluate.py
    return train(config, tmp_path_factory.mktemp("learnt"))


@pytest.fixture(scope="session")
def script_server() -> Iterator["subprocess.Popen[str]"]:
    """Runs scripts without importing torch and its kin anew for each; see `tests.script_server`."""
    command = [sys.executable, "-m", "tests.script_server"]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        yield server
        assert server.stdin
        server.stdin.close()


@pytest.fixture
def script(tmp_path: Path, script_server: "subprocess.Popen[str]") -> Scripts:
    """Runs a script in an empty folder, as a user would: script("train.py", "seed=1")."""
    return Scripts(script_server, tmp_path)


def weights(result: TrainingResult) -> dict[str, torch.Tensor]:
    """The last weights of a run."""
    return weights_in(result.folder)


def weights_in(folder: Path) -> dict[str, torch.Tensor]:
    """The same, by its folder."""
    return torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]

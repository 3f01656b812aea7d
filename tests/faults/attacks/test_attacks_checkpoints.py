"""Checkpoints, and stores of prepared data, that hold code instead of numbers."""

import json
import os
import pickle
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
import transformers
from torch.utils.data import DataLoader

from qa_lm.config.schema import DataConfig, TokenizerConfig
from qa_lm.data.batches.store import EncodedPairs
from qa_lm.data.cache import META, key_of, read_meta
from qa_lm.data.prepare import prepare
from qa_lm.data.splits.settings import NEAR_GROUPS
from qa_lm.errors import UserError
from qa_lm.modeling.module import CausalLMModule
from qa_lm.training.checkpointing.checkpoints import DirectCheckpointIO
from qa_lm.training.trainer import restore_best
from tests.faults.attacks.hostile import Trap, copied, trap

__all__ = ["trap"]


class Model(pl.LightningModule):
    """The least that Lightning trains."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)

    def training_step(self, batch: torch.Tensor, index: int) -> torch.Tensor:
        return self.layer(batch).sum()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 0.1)


def write_checkpoint(path, payload, form):
    if form == "zip":
        torch.save({"state_dict": {}, "epoch": 0, "global_step": 0, "payload": payload}, path)
    elif form == "legacy":
        torch.save({"state_dict": payload}, path, _use_new_zipfile_serialization=False)
    else:
        path.write_bytes(payload.pickled)


@pytest.mark.parametrize("form", ["zip", "legacy", "pickle"])
def test_a_checkpoint_with_code(tmp_path, trap, form):
    path = tmp_path / "last.ckpt"
    write_checkpoint(path, trap, form)
    if form != "pickle":
        torch.load(path, weights_only=False)
    else:
        pickle.loads(path.read_bytes())
    assert trap.sprang

    with pytest.raises(UserError, match=r"ckpt: (refused: contains pickled objects|not a valid checkpoint)"):
        DirectCheckpointIO().load_checkpoint(path, weights_only=False)  # what Lightning asks for does not count
    loop: Any = SimpleNamespace(
        best=SimpleNamespace(best_model_path=str(path), best_model_score=1.0),
        files=DirectCheckpointIO(),
        trainer=SimpleNamespace(global_step=-1),
    )
    with pytest.raises(UserError, match=r"ckpt: (refused: contains pickled objects|not a valid checkpoint)"):
        restore_best(Model(), loop)  # type: ignore[arg-type]
    assert not trap.sprang


def test_lightning_going_on_from_a_checkpoint_with_code(tmp_path, trap):
    path = tmp_path / "last.ckpt"
    state = {"state_dict": Model().state_dict(), "loops": {}, "pytorch-lightning_version": pl.__version__}
    torch.save(state | {"epoch": 0, "global_step": 0, "payload": trap}, path)

    def go_on(*plugins: DirectCheckpointIO) -> None:
        quiet: dict[str, Any] = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
        trainer = pl.Trainer(max_epochs=1, accelerator="cpu", plugins=list(plugins) or None, **quiet)
        trainer.fit(Model(), DataLoader(torch.ones(2, 1)), ckpt_path=path, weights_only=False)  # type: ignore[arg-type]

    with pytest.raises(KeyError):  # it lacks the optimizer's state, but by then it has been read
        go_on()
    assert trap.sprang
    with pytest.raises(UserError, match="refused: contains pickled objects"):
        go_on(DirectCheckpointIO())
    assert not trap.sprang


def test_a_shared_run_whose_checkpoint_holds_code_is_not_gone_on_with(tmp_path, trap, small_run, script):
    run = copied(small_run.folder, tmp_path / "theirs")
    for path in (run / "checkpoints").glob("*.ckpt"):
        write_checkpoint(path, trap, "zip")
    (run / "checkpoints" / "manifest.json").unlink(missing_ok=True)  # or one with fitting sums: it is theirs
    (run / "metrics.json").unlink()  # as if it had been broken off
    done = script("train.py", f"resume={run}", "trainer.max_epochs=99")
    assert not trap.sprang
    assert "Traceback" not in done.stderr
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert len(done.stderr.splitlines()) <= 2


def near(root):
    data = DataConfig(path="tutorial", split="near", cache=str(root))
    return prepare(data, TokenizerConfig("bpe", vocab_size=300), 256)


def write_sizes(folder):
    sizes = {file.name: file.stat().st_size for file in folder.iterdir() if file.name != META}
    (folder / META).write_text(json.dumps(read_meta(folder) | {"sizes": sizes}))


def test_prepared_data_with_pickled_objects(tmp_path, trap):
    root = tmp_path / "cache"
    near(root)
    (path,) = root.rglob(NEAR_GROUPS)
    np.save(path, np.array([trap] * 10, dtype=object), allow_pickle=True)
    write_sizes(path.parent)
    np.load(path, allow_pickle=True)
    assert trap.sprang
    with pytest.raises(UserError, match=r"groups.npy: is damaged: .*; delete its folder$"):
        near(root)
    assert not trap.sprang


def test_a_store_whose_ids_are_objects(tmp_path):
    root = tmp_path / "cache"
    store = near(root).examples.folder
    EncodedPairs(store, 256)
    (store / META).write_text(json.dumps(read_meta(store) | {"dtype": "O"}))
    with pytest.raises(UserError, match=r"is not a valid store of encoded pairs: its ids are O; delete it$"):
        EncodedPairs(store, 256)


def test_a_store_has_no_pickle(tmp_path):
    """All that the cache holds, by its beginning: no pickle, and of NumPy's files none with objects."""
    root = tmp_path / "cache"
    near(root)
    files = [path for path in root.rglob("*") if path.is_file() and path.suffix != ".lock"]
    assert {path.suffix for path in files} == {".json", ".bin", ".arrow", ".npy"}
    for path in files:
        if path.suffix == ".npy":
            assert not np.load(path, allow_pickle=False).dtype.hasobject


@pytest.mark.parametrize("hostile", ["../../x", "/etc/x", "..", ""])
def test_names_in_the_cache_come_from_no_text_of_others(tmp_path, hostile):
    key = key_of(kind=hostile, names=[hostile], contents=[hostile])
    assert len(key) == 32
    assert set(key) <= set("0123456789abcdef")
    root = tmp_path / "cache"
    assert Path(os.path.normpath(root / hostile)).parent != root
    assert (root / key).resolve().parent == root


def test_a_run_leaves_no_code(small_run):
    """model/ has safetensors, JSON and a chat template, which runs in a sandbox. Both checkpoints load as tensors and
    plain values."""
    suffixes = {path.suffix for path in (small_run.folder / "model").iterdir()}
    assert suffixes == {".json", ".jinja", ".jsonl", ".safetensors"}
    for path in (small_run.folder / "checkpoints").glob("*.ckpt"):
        assert torch.load(path, weights_only=True)["state_dict"]
    with pytest.raises(pickle.UnpicklingError):
        pickle.loads(Trap(small_run.folder).pickled[:-1])  # what a pickle is, unpickling tells


GPT2 = {"model_type": "gpt2", "vocab_size": 9, "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}


def checkpoint_of(folder: Path, weights: dict[str, Any], hyperparameters: dict[str, Any]) -> Path:
    """A checkpoint as Lightning writes it."""
    path = folder / "best.ckpt"
    versions = {"pytorch-lightning_version": pl.__version__}
    torch.save(versions | {"state_dict": weights, "hyper_parameters": hyperparameters}, path)
    return path


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("key", ["attn_implementation", "_attn_implementation", "quantization_config"])
def test_hyperparameters_that_name_a_program_of_the_hub(tmp_path, trap, monkeypatch, key, nested):
    """transformers fetches and runs attention from the hub without asking for trust."""

    def fetch(implementation, *arguments, **options):
        trap.marker.touch()
        raise ImportError("no network")

    monkeypatch.setattr(transformers.modeling_utils, "lazy_import_flash_attention", fetch)
    monkeypatch.setattr(transformers.modeling_utils, "is_kernels_available", lambda: True)
    with pytest.raises(ImportError):
        transformers.AutoModelForCausalLM.from_config(
            transformers.AutoConfig.for_model("gpt2", attn_implementation="kernels-community/evil")
        )
    assert trap.sprang
    hostile = {key: "kernels-community/evil"}
    model = GPT2 | ({"task_specific_params": [{"text": hostile}]} if nested else hostile)
    path = checkpoint_of(tmp_path, {}, {"model": model})
    with pytest.raises(UserError, match="refused: it would run third-party code"):
        CausalLMModule.load_from_checkpoint(path)
    assert not trap.sprang


def test_hyperparameters_with_a_model_of_their_own(tmp_path, trap):
    """`auto_map` is not read, an architecture that transformers lacks is refused, and what is pickled does not run."""
    own = {"auto_map": {"AutoModelForCausalLM": "evil.Evil"}, "_name_or_path": str(tmp_path)}
    (tmp_path / "evil.py").write_text(trap.code)
    path = checkpoint_of(tmp_path, {}, {"model": {"model_type": "evil"} | own})
    with pytest.raises(UserError, match="transformers has no causal LM of this type"):
        CausalLMModule.load_from_checkpoint(path)
    weights = CausalLMModule(GPT2).state_dict()
    checkpoint_of(tmp_path, weights, {"model": GPT2 | own})
    CausalLMModule.load_from_checkpoint(path)
    checkpoint_of(tmp_path, weights, {"model": GPT2, "optimizer": trap})
    with pytest.raises(pickle.UnpicklingError):
        CausalLMModule.load_from_checkpoint(path)
    assert not trap.sprang

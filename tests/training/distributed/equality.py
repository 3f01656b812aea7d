"""What must be equal when a run is trained by one process and by several, and the settings that are compared."""

import csv
import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from torch import Tensor

from qa_lm.run.checkpoint import read_checkpoint

TOLERANCE = 1e-5
"""Of losses, gradient norms, weights and optimizer states: sums in another order."""
EXACT = ("metrics.csv", "weights", "optimizer")
NORMS = '''
from lightning.pytorch.callbacks import Callback


class Norms(Callback):
    """Records the gradient norm of the last step of each epoch in metrics.csv."""

    def on_train_epoch_end(self, trainer, module):
        module.log("gradient_norm", module.gradient_norm)
'''
COMMON = (
    *("tokenizer=bpe", "tokenizer.vocab_size=300", "model=tiny", "model.hidden_size=64", "model.heads=2"),
    *("model.layers=2", "model.dropout=0", "data.train_fraction=0.7", "data.shuffle=true", "data.row_tokens=64"),
    *("loss_weighting=token", "trainer.accelerator=cpu", "trainer.max_epochs=3", "trainer.precision=32-true"),
    *("trainer.gradient_clip_val=1.0", "early_stopping.patience=null", "loggers=none", "trust=norms"),
    *("+callbacks.norms._target_=norms.Norms", "evaluation.max_new_tokens=8"),
)
ADAMW = ("optimizer.lr=0.5", "optimizer.eps=1")  # AdamW feels the size of a gradient only with a large eps
CASES: dict[str, tuple[str, ...]] = {
    "packed": ("data.packing=true", *ADAMW),
    "padded": ("data.packing=false", *ADAMW, "loss_weighting=pair"),
    "muon": ("data.packing=true", "optimizer=muon", "optimizer.lr=3e-3"),
    "accumulated": ("data.packing=true", *ADAMW, "trainer.accumulate_grad_batches=2"),
    "untied": ("data.packing=true", *ADAMW, "model.architecture=llama", "+model.extra.tie_word_embeddings=false"),
    "tied": ("data.packing=true", *ADAMW, "model.architecture=llama", "+model.extra.tie_word_embeddings=true"),
    "by value": (
        "data.packing=true",
        *ADAMW,
        "+trainer.gradient_clip_algorithm=value",
        "trainer.gradient_clip_val=0.01",
    ),
    "recomputed": ("data.packing=true", *ADAMW, "model.gradient_checkpointing=true"),
}
"""Settings that are compared, by name."""


PRETRAINED = (
    *("model=pretrained", "model.path=base", "data.packing=true", "data.row_tokens=64", "data.train_fraction=0.7"),
    *("data.shuffle=true", "loss_weighting=token", "trainer.accelerator=cpu", "trainer.max_epochs=3", "seed=1"),
    *("trainer.precision=32-true", "trainer.gradient_clip_val=1.0", "early_stopping.patience=null", "loggers=none"),
    *("trust=norms", "+callbacks.norms._target_=norms.Norms", "evaluation.max_new_tokens=8", *ADAMW),
)
"""The same for a pretrained model in the folder `base`; without `COMMON`."""


def command(case: tuple[str, ...], folder: str, processes: int = 1, rows: int = 4, *more: str) -> list[str]:
    """Arguments of train.py that train a case; a step has `rows` rows over all processes."""
    return [*COMMON, *case, f"data.batch_size={rows // processes}", f"hydra.run.dir={folder}", *more]


def assert_same_run(one: Path, other: Path, tolerance: float = TOLERANCE) -> None:
    """Compare metrics.csv with the gradient norms, weights, optimizer states, ledger, results table and answers."""
    wanted, found = _results(one), _results(other)
    assert "gradient_norm" in wanted["metrics.csv"][0]
    for name, value in wanted.items():
        # Losses of single pairs are not averaged, and so less precise.
        _compare(value, found[name], tolerance if name in EXACT else 10 * tolerance, name)


def _results(folder: Path) -> dict[str, Any]:
    checkpoint = read_checkpoint(folder / "checkpoints" / "last.ckpt")
    return {
        "metrics.csv": list(csv.DictReader((folder / "metrics.csv").open())),
        "weights": checkpoint["state_dict"],
        "optimizer": checkpoint["optimizer_states"],
        "ledger": pq.read_table(folder / "ledger.parquet").to_pylist(),
        "board": json.loads((folder / "board.json").read_text()),
        "answers": [json.loads(line) for line in (folder / "answers.jsonl").read_text().splitlines()],
    }


def _compare(wanted: Any, found: Any, tolerance: float, where: str) -> None:
    if isinstance(wanted, Tensor):
        assert type(found) is Tensor, where
        torch.testing.assert_close(found, wanted, atol=tolerance, rtol=tolerance, msg=lambda text: f"{where}: {text}")
    elif isinstance(wanted, dict):
        assert list(wanted) == list(found), where
        for key in wanted:
            _compare(wanted[key], found[key], tolerance, f"{where}.{key}")
    elif isinstance(wanted, list | tuple):
        assert len(wanted) == len(found), where
        for number, pair in enumerate(zip(wanted, found, strict=True)):
            _compare(*pair, tolerance, f"{where}[{number}]")
    elif isinstance(wanted, float) or (isinstance(wanted, str) and _is_number(wanted)):
        assert float(found) == pytest.approx(float(wanted), abs=tolerance, rel=tolerance), where
    else:
        assert wanted == found, where


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True

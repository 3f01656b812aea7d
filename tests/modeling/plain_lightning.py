"""Module and data as a script of one's own builds them, and a plain Trainer."""

import csv
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger

from qa_lm.config.schema import DataConfig, TokenizerConfig
from qa_lm.data.batches.datamodule import PairsDataModule
from qa_lm.modeling.module import CausalLMModule

BPE = TokenizerConfig(kind="bpe", vocab_size=300)


def ten_pairs(**changes: Any) -> PairsDataModule:
    return PairsDataModule.from_config(DataConfig(path="tutorial", split="shuffle", **changes), BPE, recall_pairs=512)


def tiny(data: PairsDataModule, **options: Any) -> CausalLMModule:
    tokenizer = data.prepared.tokenizer
    return CausalLMModule.from_config(
        {
            "model_type": "gpt2",
            "vocab_size": len(tokenizer),
            "hidden_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "max_position_embeddings": 256,
            "bos_token_id": tokenizer.eos_id,
            "eos_token_id": tokenizer.eos_id,
        },
        optimizer={"lr": 3e-3},
        schedule={"kind": "cosine", "steps": 100},
        **options,
    )


def plain_trainer(folder: Path, epochs: int = 2, **arguments: Any) -> pl.Trainer:
    return pl.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        logger=CSVLogger(folder, name="", version=""),
        callbacks=[ModelCheckpoint(folder, "best", monitor="val/loss", enable_version_counter=False)],
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        **arguments,
    )


def curves(folder: Path) -> dict[str, list[float]]:
    """What the CSVLogger has, by name."""
    found: dict[str, list[float]] = {}
    with (folder / "metrics.csv").open() as file:
        for row in csv.DictReader(file):
            for name, text in row.items():
                if text:
                    found.setdefault(name, []).append(float(text))
    return found

"""Our own side, built in this process and stepped by hand or by Lightning."""

import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback

from qa_lm.config.enums import LossWeighting, OptimizerKind
from qa_lm.config.schema import DataConfig, ModelConfig, OptimizerConfig, TokenizerConfig, TrainConfig
from qa_lm.data.prepare import PreparedData, prepare
from qa_lm.modeling.gradients import clip
from qa_lm.training.attention import set_attention_for_training
from qa_lm.training.build import Task, build_task
from qa_lm.training.estimate import autocast, estimate_training, first_batches
from qa_lm.training.hardware import choose_precision, device_of, tune_allocator
from qa_lm.training.recipe import completed
from qa_lm.training.trainer import build_trainer, quiet_lightning


class TimedSteps(Callback):
    """Time from the end of one step to the end of the next: all that a step costs under Lightning."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Note the time."""
        if batch.inputs.device.type == "cuda":
            torch.cuda.synchronize()
        self.ends.append(time.perf_counter())

    def seconds(self) -> list[float]:
        """Of each step but the first two."""
        return [float(each) for each in np.diff(self.ends[1:])]


@dataclass
class Built:
    """A run that is ready to be stepped."""

    config: TrainConfig
    task: Task
    prepared: PreparedData
    precision: str
    device: torch.device
    compilation: str
    lengths: np.ndarray

    @property
    def module(self) -> Any:
        """The LightningModule."""
        return self.task.module

    def fit(self, steps: int) -> list[float]:
        """Steps by Lightning, with the callbacks of a real run: seconds of each but the first two."""
        timed = TimedSteps()
        self.config.trainer |= {"max_steps": steps, "max_epochs": -1, "limit_val_batches": 0}
        with tempfile.TemporaryDirectory() as folder:
            setup = build_trainer(self.config, Path(folder), self.prepared)
            callbacks: list[Callback] = setup.trainer.callbacks  # type: ignore[attr-defined]
            callbacks.append(timed)
            setup.trainer.fit(self.module, datamodule=self.task.data)
        return timed.seconds()


def built(model: dict[str, Any], pairs: str, tokens: int, optimizer: str, fused: bool = False) -> Built:
    """A run of the fast path on these pairs.

    Args:
        model: kind and size of vocabulary, width, layers, architecture.
        pairs: a file.
        tokens: positions of a step.
        optimizer: adamw or muon.
        fused: whether attention is fused, whatever a run would use.
    """
    quiet_lightning()
    tune_allocator({})
    config = TrainConfig(
        data=DataConfig(path=pairs, packing=True, row_tokens=None, shuffle=True, train_fraction=0.95),
        tokenizer=TokenizerConfig(model["kind"], vocab_size=model["vocab"] or None),
        model=ModelConfig(
            architecture=model["architecture"],
            hidden_size=model["d"],
            layers=model["layers"],
            heads=model["d"] // 64,
            context=1024,
        ),
        optimizer=OptimizerConfig(kind=OptimizerKind(optimizer), lr=1e-3),
        loss_weighting=LossWeighting.token,
        trainer={"max_epochs": 1},
    )
    if model["architecture"] == "llama":
        config.model.extra = {"intermediate_size": round(model["d"] * 8 / 48) * 16}
    prepared = prepare(config.data, config.tokenizer, config.model.context)
    sizes = prepared.sizes()
    assert prepared.row_tokens
    config.data.batch_size = tokens // prepared.row_tokens
    config = completed(config, sizes)
    precision = choose_precision(config.trainer).name
    config.trainer["precision"] = precision
    device = device_of(config.trainer)
    with tempfile.TemporaryDirectory() as folder:
        task = build_task(config, prepared, build_trainer(config, Path(folder), prepared).trainer)
    if not fused:
        set_attention_for_training(task.module.model, config, device.type == "cpu")
    estimate = estimate_training(task.module, task.data, precision, device, 1, True)
    return Built(config, task, prepared, precision, device, estimate.compilation, sizes.lengths)


def plain_steps(built: Built, steps: int) -> tuple[list[float], float]:
    """The same work without Lightning: seconds of each step but the first two, and mean real tokens of a step."""
    module, seconds = built.module, []
    batches = first_batches(built.task.data, built.device, 8)
    optimizer = module.make_optimizer(module.model)
    module.train()
    for number in range(steps):
        batch = batches[number % len(batches)]
        start = time.perf_counter()
        with autocast(batch, built.precision):
            sums = module(batch)
        (sums.loss / sums.weight).backward()
        clip(module.parameters(), None, None)
        optimizer.step()
        optimizer.zero_grad()
        if built.device.type == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    return seconds[2:], statistics.mean(batch.tokens for batch in batches)

"""The pairs that were in a training step. Only those count as trained."""

from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from qa_lm.data.batches.datamodule import PairsDataModule

KEY = "seen_pairs"


class SeenPairs(Callback):
    """Marks the pairs of each training step, until all training pairs are marked.

    Each process marks its own pairs. After training, `mask` of the first process contains the marks of all processes.
    """

    def __init__(self) -> None:
        self.mask: Tensor = torch.zeros(0, dtype=torch.bool)
        """Whether each pair was trained, by its index in the table."""
        self._complete = False

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Start with no pair marked."""
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        assert isinstance(data, PairsDataModule)
        self.mask = torch.zeros(int(data.split.train.max(initial=-1)) + 1, dtype=torch.bool)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Mark the pairs of the batch."""
        if not self._complete:
            self.mask[batch.indices.cpu()] = True

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Check whether all training pairs are marked."""
        if self._complete:
            return
        self._gather(trainer)
        trained = trainer.datamodule.split.train  # type: ignore[attr-defined]
        self._complete = bool(self.mask[torch.from_numpy(np.asarray(trained, dtype=np.int64))].all())

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Save the marks of all processes."""
        if not self._complete:
            self._gather(trainer)
        checkpoint[KEY] = self.mask

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Restore the marks."""
        self.mask = checkpoint[KEY].clone()

    def _gather(self, trainer: pl.Trainer) -> None:
        if trainer.world_size > 1:
            marks = self.mask.to(trainer.strategy.root_device, torch.float32)
            total = trainer.strategy.reduce(marks, reduce_op="sum")
            assert isinstance(total, Tensor)
            self.mask = total.cpu() > 0

"""Which pairs were ever in a training step: only those count as trained, whatever was to be trained."""

from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from qa_lm.data.batches.datamodule import PairsDataModule

KEY = "seen_pairs"


class SeenPairs(Callback):
    """Marks the pairs of each training step, until an epoch has been trained as a whole.

    Each process marks its own; `mask` of the first process knows all of them once training has ended.
    """

    def __init__(self) -> None:
        self.mask: Tensor = torch.zeros(0, dtype=torch.bool)
        """For each pair of the table whether it was trained."""
        self._complete = False

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Begin with none."""
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        assert isinstance(data, PairsDataModule)
        self.mask = torch.zeros(int(data.split.train.max(initial=-1)) + 1, dtype=torch.bool)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Mark the step's pairs."""
        if not self._complete:
            self.mask[batch.indices.cpu()] = True

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Look whether all are marked."""
        if self._complete:
            return
        self._gather(trainer)
        trained = trainer.datamodule.split.train  # type: ignore[attr-defined]
        self._complete = bool(self.mask[torch.from_numpy(np.asarray(trained, dtype=np.int64))].all())

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Keep the marks of all processes."""
        if not self._complete:
            self._gather(trainer)
        checkpoint[KEY] = self.mask

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Put them back."""
        self.mask = checkpoint[KEY].clone()

    def _gather(self, trainer: pl.Trainer) -> None:
        if trainer.world_size > 1:
            marks = self.mask.to(trainer.strategy.root_device, torch.float32)
            total = trainer.strategy.reduce(marks, reduce_op="sum")
            assert isinstance(total, Tensor)
            self.mask = total.cpu() > 0

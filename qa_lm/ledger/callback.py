"""The ledger: for each trained pair and epoch, the loss of the answer and whether it was exact.

- It needs no extra forward pass: both are by-products of the training step, with the weights before that step.
- Steps are collected on the device and moved `STEPS` at a time, so that no step waits for the device.
- Memory, here and in each checkpoint: 5 bytes per trained pair and epoch; 300 MB for a million pairs in 60 epochs.
"""

from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from qa_lm.data.batches.datamodule import PairsDataModule
from qa_lm.modeling.module import CausalLMModule

STEPS = 1024
"""Number of steps whose results are moved from the device at once."""
NOT_TRAINED = -1
"""Value in `exact` for a pair that was not trained in an epoch, because the epoch ended early."""


class Ledger(Callback):
    """Records the loss and exactness of each pair in each epoch.

    Each process trains different pairs. The results of the current epoch are gathered on the first process after each
    validation and epoch, and before each checkpoint.
    """

    def __init__(self) -> None:
        self.trained = np.zeros(0, np.int64)
        """Indices in the table of the trained pairs, ascending; the order of all arrays."""
        self.losses: list[np.ndarray] = []
        """For each epoch, the mean loss of each pair's answer tokens (EOS included), in nats, float32."""
        self.exact: list[np.ndarray] = []
        """For each epoch, 1 if every answer token and EOS was the argmax, otherwise 0, or `NOT_TRAINED`, int8."""
        self._steps: list[tuple[Tensor, Tensor, Tensor]] = []

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Get the indices of the trained pairs from the data module."""
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        assert isinstance(data, PairsDataModule)
        self.trained = np.sort(data.split.train).astype(np.int64)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Keep the current epoch's results of a checkpoint only on the first process, since all processes load it."""
        if self.losses and not trainer.is_global_zero:
            self._clear_epoch()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Collect the results of the step."""
        assert isinstance(pl_module, CausalLMModule)
        assert pl_module.step_pairs is not None
        # Not in `on_train_epoch_start`, which is not called when a run resumes in the middle of an epoch.
        if len(self.losses) <= trainer.current_epoch:
            self._start_epoch()
        self._steps.append(pl_module.step_pairs)
        if len(self._steps) == STEPS:
            self._flush()

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Gather the results before a checkpoint is saved."""
        self._gather(trainer, pl_module)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Gather the results of the epoch."""
        self._gather(trainer, pl_module)

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Include the results of the other processes in a checkpoint within an epoch."""
        if trainer.world_size > 1:
            self._gather(trainer, pl_module)
            checkpoint["callbacks"][self.state_key] = self.state_dict()

    def state_dict(self) -> dict[str, Any]:
        """The results so far as tensors, including those of the current epoch."""
        self._flush()
        return {
            "trained": torch.from_numpy(self.trained),
            "losses": [torch.from_numpy(epoch) for epoch in self.losses],
            "exact": [torch.from_numpy(epoch) for epoch in self.exact],
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore what `state_dict` saved."""
        assert np.array_equal(self.trained, state_dict["trained"].numpy()), "the checkpoint has different pairs"
        # Clone, because the tensors are mapped from the checkpoint file, which the next checkpoint replaces.
        self.losses = [epoch.clone().numpy() for epoch in state_dict["losses"]]
        self.exact = [epoch.clone().numpy() for epoch in state_dict["exact"]]
        self._steps = []

    def results(self) -> tuple[np.ndarray, list[np.ndarray], list[np.ndarray]]:
        """Indices, losses and exactness of the pairs that were in at least one training step."""
        seen = np.zeros(len(self.trained), bool)
        for epoch in self.exact:
            seen |= epoch != NOT_TRAINED
        if seen.all():
            return self.trained, self.losses, self.exact
        return self.trained[seen], [epoch[seen] for epoch in self.losses], [epoch[seen] for epoch in self.exact]

    def _start_epoch(self) -> None:
        self._flush()
        self.losses.append(np.full(len(self.trained), np.nan, np.float32))
        self.exact.append(np.full(len(self.trained), NOT_TRAINED, np.int8))

    def _flush(self) -> None:
        """Move the collected steps into the arrays of the current epoch."""
        if not self._steps:
            return
        indices, losses, exact = (torch.cat(each).cpu().numpy() for each in zip(*self._steps, strict=True))
        self._steps = []
        positions = np.searchsorted(self.trained, indices)
        self.losses[-1][positions] = losses
        self.exact[-1][positions] = exact

    def _gather(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Gather the results of the current epoch from all processes on the first one."""
        self._flush()
        if trainer.world_size == 1 or not self.losses:
            return
        known = self.exact[-1] != NOT_TRAINED
        own = np.stack([known, np.where(known, self.losses[-1], 0), known & (self.exact[-1] == 1)]).astype(np.float32)
        total = trainer.strategy.reduce(torch.from_numpy(own).to(pl_module.device), reduce_op="sum")
        assert isinstance(total, Tensor)
        known, losses, exact = total.cpu().numpy()
        if trainer.is_global_zero:  # from here on the first process has all results, the others only new ones
            self.losses[-1] = np.where(known > 0, losses, np.nan).astype(np.float32)
            self.exact[-1] = np.where(known > 0, exact, NOT_TRAINED).astype(np.int8)
        else:
            self._clear_epoch()

    def _clear_epoch(self) -> None:
        self.losses[-1][:] = np.nan
        self.exact[-1][:] = NOT_TRAINED

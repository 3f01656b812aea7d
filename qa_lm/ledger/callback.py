"""The ledger: for each trained pair and epoch, how large the loss of its answer was and whether it was exact.

- It costs no forward pass: both are by-products of the training step, as the model was right before that step.
- Steps are collected on the device and moved `STEPS` at a time, so that no step waits for the device.
- Memory, here and in each checkpoint: 5 bytes for each trained pair and epoch; 300 MB for a million pairs in 60 epochs.
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
"""Steps whose pairs are moved from the device at once."""
NOT_TRAINED = -1
"""Stands in `exact` for a pair that an epoch, ended early, did not come to."""


class Ledger(Callback):
    """Keeps what each epoch's steps say about their pairs.

    Each process trains pairs of its own: what the others know of the current epoch comes to the first one after each
    validation and epoch, and before each checkpoint.
    """

    def __init__(self) -> None:
        self.trained = np.zeros(0, np.int64)
        """Places in the table of the trained pairs, ascending; the order of all arrays."""
        self.losses: list[np.ndarray] = []
        """For each epoch the mean loss of each pair's answer tokens and EOS, in nats, float32."""
        self.exact: list[np.ndarray] = []
        """For each epoch 1 where every answer token and the EOS was the argmax, else 0 or `NOT_TRAINED`, int8."""
        self._steps: list[tuple[Tensor, Tensor, Tensor]] = []

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Learn which pairs are trained."""
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        assert isinstance(data, PairsDataModule)
        self.trained = np.sort(data.split.train).astype(np.int64)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """A checkpoint is loaded by all processes: what it knows of the current epoch is the first one's to keep."""
        if self.losses and not trainer.is_global_zero:
            self._forget()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Collect the step's pairs."""
        assert isinstance(pl_module, CausalLMModule)
        assert pl_module.step_pairs is not None
        # Not in the hook for an epoch's start, which a run resumed in the middle of one does not call.
        if len(self.losses) <= trainer.current_epoch:
            self._begin_epoch()
        self._steps.append(pl_module.step_pairs)
        if len(self._steps) == STEPS:
            self._keep()

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Be complete before a checkpoint is saved."""
        self._gather(trainer, pl_module)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Complete the epoch."""
        self._gather(trainer, pl_module)

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Let a checkpoint within an epoch hold what the other processes know."""
        if trainer.world_size > 1:
            self._gather(trainer, pl_module)
            checkpoint["callbacks"][self.state_key] = self.state_dict()

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps: tensors, the current epoch's steps so far included."""
        self._keep()
        return {
            "trained": torch.from_numpy(self.trained),
            "losses": [torch.from_numpy(epoch) for epoch in self.losses],
            "exact": [torch.from_numpy(epoch) for epoch in self.exact],
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on with it."""
        assert np.array_equal(self.trained, state_dict["trained"].numpy()), "the checkpoint is of other pairs"
        # Copies: a checkpoint's own tensors are mapped from its file, which the next one replaces.
        self.losses = [epoch.clone().numpy() for epoch in state_dict["losses"]]
        self.exact = [epoch.clone().numpy() for epoch in state_dict["exact"]]
        self._steps = []

    def of_trained(self) -> tuple[np.ndarray, list[np.ndarray], list[np.ndarray]]:
        """Places, losses and exactness of the pairs that were in a training step."""
        known = np.zeros(len(self.trained), bool)
        for epoch in self.exact:
            known |= epoch != NOT_TRAINED
        if known.all():
            return self.trained, self.losses, self.exact
        return self.trained[known], [epoch[known] for epoch in self.losses], [epoch[known] for epoch in self.exact]

    def _begin_epoch(self) -> None:
        self._keep()
        self.losses.append(np.full(len(self.trained), np.nan, np.float32))
        self.exact.append(np.full(len(self.trained), NOT_TRAINED, np.int8))

    def _keep(self) -> None:
        """Put the collected steps into the current epoch's arrays."""
        if not self._steps:
            return
        indices, losses, exact = (torch.cat(each).cpu().numpy() for each in zip(*self._steps, strict=True))
        self._steps = []
        place = np.searchsorted(self.trained, indices)
        self.losses[-1][place] = losses
        self.exact[-1][place] = exact

    def _gather(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Add what the other processes know of the current epoch."""
        self._keep()
        if trainer.world_size == 1 or not self.losses:
            return
        known = self.exact[-1] != NOT_TRAINED
        own = np.stack([known, np.where(known, self.losses[-1], 0), known & (self.exact[-1] == 1)]).astype(np.float32)
        total = trainer.strategy.reduce(torch.from_numpy(own).to(pl_module.device), reduce_op="sum")
        assert isinstance(total, Tensor)
        known, losses, exact = total.cpu().numpy()
        if trainer.is_global_zero:  # the first process knows all from here on, the others only what comes
            self.losses[-1] = np.where(known > 0, losses, np.nan).astype(np.float32)
            self.exact[-1] = np.where(known > 0, exact, NOT_TRAINED).astype(np.int8)
        else:
            self._forget()

    def _forget(self) -> None:
        self.losses[-1][:] = np.nan
        self.exact[-1][:] = NOT_TRAINED

"""Curves of exact match for each row of held-out pairs in the results table."""

from collections.abc import Mapping
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from qa_lm.data.prepare import PreparedData
from qa_lm.data.splits.draw import KINDS
from qa_lm.evaluation.assess import trained_pairs
from qa_lm.modeling.epoch_metrics import VALIDATION
from qa_lm.modeling.module import CausalLMModule
from qa_lm.training.logging.loggers import log_values

MAX_PAIRS = 50_000
"""Maximum number of pairs for comparing held-out with trained pairs before training, which takes seconds."""


def validation_parts(prepared: PreparedData) -> dict[str, np.ndarray]:
    """Return the indices of the validation pairs in each row of the results table, except the row of all pairs."""
    split = prepared.split
    if not len(split.validation):
        return {}
    parts = {KINDS[kind]: split.validation[split.held_out == kind] for kind in range(1, len(KINDS))}
    if len(split.train) + len(split.validation) <= MAX_PAIRS:
        relations = trained_pairs(prepared).overlaps(prepared.table.pairs(split.validation))
        names = np.array([relation.name for relation in relations])
        parts |= {str(name): split.validation[names == name] for name in np.unique(names)}
    return {name: np.sort(places) for name, places in parts.items() if len(places)}


class BoardScalars(Callback):
    """Logs `val/exact_match - <part>` at each validation: the share of the part's pairs that are answered exactly.

    It needs no forward pass of its own: it uses the results of the validation.

    Args:
        parts: indices of the pairs of each part, ascending; see `validation_parts`.
    """

    def __init__(self, parts: Mapping[str, np.ndarray]) -> None:
        self.parts = parts
        self._pairs: list[tuple[Tensor, Tensor]] = []

    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Collect the results of the batch."""
        assert isinstance(pl_module, CausalLMModule)
        if self.parts and dataloader_idx == VALIDATION and pl_module.step_pairs:
            indices, _, exact = pl_module.step_pairs
            self._pairs.append((indices, exact))

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Log the shares over all processes."""
        if not self._pairs or trainer.sanity_checking:
            self._pairs = []
            return
        indices, exact = (torch.cat(each).cpu().numpy() for each in zip(*self._pairs, strict=True))
        self._pairs = []
        counts = np.array([[inside.sum(), exact[inside].sum()] for inside in self._inside(indices)], np.float32)
        total = trainer.strategy.reduce(torch.from_numpy(counts).to(pl_module.device), reduce_op="sum")
        assert isinstance(total, Tensor)
        shares = {
            f"val/exact_match - {name}": right / count
            for name, (count, right) in zip(self.parts, total.tolist(), strict=True)
            if count
        }
        log_values(trainer, shares)

    def _inside(self, indices: np.ndarray) -> list[np.ndarray]:
        return [np.isin(indices, places, assume_unique=True) for places in self.parts.values()]

"""Bad batches: losses or gradients that are not finite, and spikes of the loss, with the pairs of the batch."""

import json
import math
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from qa_lm.data.table import PairTable
from qa_lm.modeling.module import CausalLMModule
from qa_lm.run.atomic import write_text
from qa_lm.training.distributed.collectives import all_gathered, print_once

SKIPPED, SPIKE = "skipped", "spike"
WINDOW = 50
"""Steps in the running mean of the loss. No spike is reported before that many steps."""
SPIKE_DEVIATIONS, SPIKE_FACTOR = 6.0, 2.0
"""A spike is this number of running standard deviations above the running mean, and at least this multiple of it."""
MAX_IN_A_ROW = 10
"""Number of skipped steps in a row that ends training."""
MAX_SPIKES = 100
"""Maximum number of spikes that are recorded in a run."""
MAX_WARNINGS = 3
"""Maximum number of warnings about skipped steps in a row."""


class BadBatches(Callback):
    """Writes `bad_batches.jsonl`, and ends training when too many updates in a row were skipped.

    The module itself skips the updates: see `qa_lm.modeling.gradients`.

    Args:
        path: the file to write.
        table: all pairs, to name those of a batch.
    """

    def __init__(self, path: Path, table: PairTable) -> None:
        self.path, self.table = path, table
        self.records: list[dict[str, Any]] = []
        self.in_a_row = 0
        self._mean, self._variance, self._seen = 0.0, 0.0, 0
        self._indices: list[Tensor] = []  # pairs of the micro-batches since the last step

    @property
    def diverged(self) -> bool:
        """Whether training ended because too many updates in a row were skipped."""
        return self.in_a_row >= MAX_IN_A_ROW

    @property
    def skipped(self) -> int:
        """Number of skipped updates."""
        return sum(record["kind"] == SKIPPED for record in self.records)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Check the step that this batch completes."""
        assert isinstance(pl_module, CausalLMModule)
        self._indices.append(batch.indices)
        if not trainer.is_last_batch and (batch_idx + 1) % trainer.accumulate_grad_batches:
            return
        loss, norm = torch.stack([pl_module.step_loss.float(), pl_module.gradient_norm.float()]).tolist()
        if not math.isfinite(norm):
            self.in_a_row += 1
            self._record(trainer, SKIPPED, loss, norm)
            self._warn(trainer, loss)
        else:
            self.in_a_row = 0
            if self._is_spike(loss) and len(self.records) - self.skipped < MAX_SPIKES:
                self._record(trainer, SPIKE, loss, norm)
        self._indices = []

    def state_dict(self) -> dict[str, Any]:
        """Return the state for a checkpoint."""
        running = [self._mean, self._variance, self._seen]
        return {"records": self.records, "in_a_row": self.in_a_row, "running": running}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the state of a checkpoint."""
        self.records, self.in_a_row = list(state_dict["records"]), state_dict["in_a_row"]
        self._mean, self._variance, self._seen = state_dict["running"]

    def _is_spike(self, loss: float) -> bool:
        """Whether the loss is a spike. The running mean takes in all other losses."""
        if not math.isfinite(loss):
            return False
        limit = max(self._mean + SPIKE_DEVIATIONS * math.sqrt(self._variance), SPIKE_FACTOR * self._mean)
        if self._seen >= WINDOW and loss > limit:
            return True
        self._seen += 1
        weight = 1 / min(self._seen, WINDOW)
        from_mean = loss - self._mean
        self._mean += weight * from_mean
        self._variance = (1 - weight) * (self._variance + weight * from_mean**2)
        return False

    def _record(self, trainer: pl.Trainer, kind: str, loss: float, norm: float) -> None:
        indices = torch.cat(self._indices).cpu()
        if kind == SKIPPED:  # all processes skip the same steps
            indices = torch.cat(all_gathered(trainer, indices))
        self.records.append(
            {
                "kind": kind,
                "epoch": trainer.current_epoch + 1,
                "step": trainer.global_step,
                "loss": loss if math.isfinite(loss) else str(loss),
                "gradient_norm": norm if math.isfinite(norm) else str(norm),
                "pairs": self._pairs(indices),
            }
        )
        if trainer.is_global_zero:
            text = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in self.records)
            write_text(self.path, text)

    def _pairs(self, indices: Tensor) -> list[dict[str, Any]]:
        assert self.table is not None
        table, places = self.table, indices.tolist()
        return [
            {
                "file": table.sources[int(table.numbers("source")[place])],
                "line": int(table.numbers("line")[place]),
                "question": pair.question,
                "answer": pair.answer,
            }
            for place, pair in zip(places, table.pairs(places), strict=True)
        ]

    def _warn(self, trainer: pl.Trainer, loss: float) -> None:
        reason = "the gradient is not finite" if math.isfinite(loss) else f"the loss is {loss}"
        if self.in_a_row <= MAX_WARNINGS:
            print_once(
                trainer,
                f"warning: step {trainer.global_step}: {reason}; this update is skipped, and its pairs are in "
                f"{self.path.name}",
            )
        if self.diverged:
            trainer.should_stop = True
            print_once(
                trainer,
                f"Stopped: {self.in_a_row} updates in a row were skipped. Try a lower optimizer.lr or "
                "trainer.gradient_clip_val=1.",
            )

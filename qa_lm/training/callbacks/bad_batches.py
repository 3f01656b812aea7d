"""Steps that went wrong: losses or gradients that are not finite, and leaps of the loss; with the pairs that did it."""

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
from qa_lm.training.callbacks.distributed import gathered
from qa_lm.training.callbacks.epochs import say

SKIPPED, SPIKE = "skipped", "spike"
MEMORY = 50
"""Steps over which the running mean of the loss remembers, and which it must have seen before it judges."""
LEAP = 6.0
"""A spike is so many running standard deviations above the running mean, and at least `TIMES` the mean."""
TIMES = 2.0
MOST_SPIKES = 100
"""Spikes that are kept of a run."""
TOLD = 3
"""Skipped steps in a row that are told one by one."""


class BadBatches(Callback):
    """Writes `bad_batches.jsonl`, and ends training when too many updates in a row had to be skipped.

    The module has skipped the update already: see `qa_lm.modeling.clipping`.

    Args:
        path: where to write.
        most_in_a_row: skipped steps in a row that end training.
        table: the pairs, to name them.
    """

    def __init__(self, path: Path, most_in_a_row: int, table: PairTable) -> None:
        self.path, self.most_in_a_row, self.table = path, most_in_a_row, table
        self.records: list[dict[str, Any]] = []
        self.in_a_row = 0
        self._mean, self._variance, self._seen = 0.0, 0.0, 0
        self._window: list[Tensor] = []  # pairs of the micro-batches since the last step

    @property
    def diverged(self) -> bool:
        """Whether training has ended for this."""
        return self.in_a_row >= self.most_in_a_row

    @property
    def skipped(self) -> int:
        """Number of skipped updates."""
        return sum(record["kind"] == SKIPPED for record in self.records)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Look at the step that this batch completes."""
        assert isinstance(pl_module, CausalLMModule)
        self._window.append(batch.indices)
        if not trainer.is_last_batch and (batch_idx + 1) % trainer.accumulate_grad_batches:
            return
        loss, norm = torch.stack([pl_module.step_loss.float(), pl_module.gradient_norm.float()]).tolist()
        if not math.isfinite(norm):
            self.in_a_row += 1
            self._record(trainer, SKIPPED, loss, norm)
            self._tell(trainer, loss)
        else:
            self.in_a_row = 0
            if self._leaps(loss) and len(self.records) - self.skipped < MOST_SPIKES:
                self._record(trainer, SPIKE, loss, norm)
        self._window = []

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        running = [self._mean, self._variance, self._seen]
        return {"records": self.records, "in_a_row": self.in_a_row, "running": running}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on with it."""
        self.records, self.in_a_row = list(state_dict["records"]), state_dict["in_a_row"]
        self._mean, self._variance, self._seen = state_dict["running"]

    def _leaps(self, loss: float) -> bool:
        """Whether the loss is a spike; one that is does not move the running mean."""
        if not math.isfinite(loss):
            return False
        far = self._mean + LEAP * math.sqrt(self._variance)
        if self._seen >= MEMORY and loss > max(far, TIMES * self._mean):
            return True
        self._seen += 1
        weight = 1 / min(self._seen, MEMORY)
        from_mean = loss - self._mean
        self._mean += weight * from_mean
        self._variance = (1 - weight) * (self._variance + weight * from_mean**2)
        return False

    def _record(self, trainer: pl.Trainer, kind: str, loss: float, norm: float) -> None:
        indices = torch.cat(self._window).cpu()
        if kind == SKIPPED:  # all processes skip together
            indices = torch.cat(gathered(trainer, indices))
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

    def _tell(self, trainer: pl.Trainer, loss: float) -> None:
        what = "the gradient is" if math.isfinite(loss) else f"the loss is {loss}:"
        if self.in_a_row <= TOLD:
            say(
                trainer,
                f"warning: step {trainer.global_step}: {what} not finite; the update is skipped, the pairs are in "
                f"{self.path.name}",
            )
        if self.diverged:
            trainer.should_stop = True
            say(
                trainer,
                f"Stopped: {self.in_a_row} updates in a row were skipped. A lower optimizer.lr or "
                "trainer.gradient_clip_val=1 may help.",
            )

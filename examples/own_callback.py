"""A callback of your own, with a metric that decides about the best checkpoint: the loss of the worst held-out pair.

From Python: `python examples/own_callback.py`. On the command line, in the folder of this file:
`train.py trust=own_callback callbacks.worst._target_=own_callback.WorstPair monitor=val/worst_pair_loss`.
"""

from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback

import qa_lm

HELD_OUT = 0  # number of the validation's data loader with the held-out pairs; 1 is the sample of trained pairs


class WorstPair(Callback):
    """Logs the largest loss of a validation pair: a column of metrics.csv, a curve, and a value of `monitor`."""

    def on_validation_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Forget the last validation."""
        self.worst = torch.zeros((), device=pl_module.device)

    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Look at the batch's pairs: `step_pairs` has their places in the table, losses, and whether each is exact."""
        _, losses, _ = pl_module.step_pairs
        if dataloader_idx == HELD_OUT and len(losses):
            self.worst = torch.maximum(self.worst, losses.max())

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Log it."""
        pl_module.log("val/worst_pair_loss", self.worst)


if __name__ == "__main__":
    config = qa_lm.compose(
        *("model=tiny", "optimizer.lr=1e-3", "tokenizer=bpe", "trainer.max_epochs=5", "monitor=val/worst_pair_loss")
    )
    run = qa_lm.train(config, callbacks=[WorstPair()])
    print((run.folder / "metrics.csv").read_text())

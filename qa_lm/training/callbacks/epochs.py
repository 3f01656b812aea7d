"""Metrics by epoch: metrics.csv, and what loggers get."""

import csv
import io
import time
from pathlib import Path
from typing import Any, ClassVar

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from qa_lm.config.validate import MONITORS
from qa_lm.errors import UserError
from qa_lm.modeling.epoch_metrics import EXACT_THEN_LOSS, RECALL_THEN_LOSS
from qa_lm.modeling.module import CausalLMModule
from qa_lm.run.atomic import write_text
from qa_lm.run.run_folder import METRICS_COLUMNS
from qa_lm.training.distributed.collectives import print_once, sum_over_processes
from qa_lm.training.logging.loggers import log_values

EpochRow = dict[str, int | float | None]


class EpochRecord(Callback):
    """Keeps a row of metrics per epoch, writes them to metrics.csv, and logs them.

    The rows contain no times, so that two runs with the same seed write the same file.

    Args:
        path: path of metrics.csv.
        log_every_n_steps: optimizer steps between two logs of the loss of a step; 0 logs none.
        score: the metric that selects the best checkpoint.
        warn_on_write_error: whether a file that cannot be written gives only a warning. The next epoch writes all rows.
    """

    COLUMNS: ClassVar = {
        "val_loss": "val/loss",
        "val_exact_match": "val/exact_match",
        "val_bits_per_answer_byte": "val/bits_per_answer_byte",
        "train_recall": "train/recall",
    }
    """Column to the name under which the module logs it. Any other logged metric gets a column of its own name."""
    OURS = frozenset({*COLUMNS.values(), "train/loss", RECALL_THEN_LOSS, EXACT_THEN_LOSS})
    STATE = ("rows", "validations", "_validation")

    def __init__(self, path: Path, log_every_n_steps: int, score: str, warn_on_write_error: bool = False) -> None:
        self.path, self.warn_on_write_error = path, warn_on_write_error
        self.rows: list[EpochRow] = []
        self.score = score
        self.validations: list[tuple[int, int, float, float]] = []
        """Epoch, step, score and `val/loss` (nats) of each validation."""
        self.log_every_n_steps = log_every_n_steps
        self._validation: dict[str, float] = {}  # metrics of the newest validation of this epoch
        self._earlier: dict[str, Tensor] = {}
        """What the Trainer kept at the end of the newest validation or epoch."""

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Take over logging from the module, because Lightning logs an epoch only after the checkpoint at its end."""
        assert isinstance(pl_module, CausalLMModule)
        pl_module.log_to_loggers = False

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Forget the validations of the former epoch."""
        self._validation = {}

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Log the loss every `log_every_n_steps` steps."""
        assert isinstance(pl_module, CausalLMModule)
        if self.log_every_n_steps and trainer.global_step % self.log_every_n_steps == 0:
            log_values(trainer, {"train/loss_step": float(pl_module.step_loss)})

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Keep and log the metrics."""
        if trainer.sanity_checking:
            return
        metrics = self._newly_logged(trainer)
        metrics.pop("train/loss", None)  # of the previous epoch; `on_train_epoch_end` logs that of this one
        if self.score not in self.OURS and self.score not in metrics:
            others = ", ".join(sorted({*metrics, *MONITORS} - {RECALL_THEN_LOSS, EXACT_THEN_LOSS}))
            raise UserError(
                f"monitor={self.score}: this metric was not logged in the validation; choose one of {others}", "monitor"
            )
        self._validation = self._validation | metrics  # a new dict: checkpoints may hold the former one
        if self.score in metrics:
            score, loss = metrics[self.score], metrics.get("val/loss", float("nan"))
            self.validations.append((trainer.current_epoch + 1, trainer.global_step, score, loss))
        log_values(trainer, {name: value for name, value in metrics.items() if name in self.OURS})

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Add the row of the epoch, write the file, and log the metrics."""
        assert isinstance(pl_module, CausalLMModule)
        train_loss = pl_module.epoch_train_loss()
        lr = trainer.optimizers[0].param_groups[0]["lr"]
        row: EpochRow = {
            "epoch": trainer.current_epoch + 1,
            "step": trainer.global_step,
            "train_loss": train_loss,
            **{column: self._validation.get(name) for column, name in self.COLUMNS.items()},
            "learning_rate": lr,
        }
        logged = self._validation | self._newly_logged(trainer)
        row |= {name: value for name, value in logged.items() if name not in self.OURS}
        self.rows.append(row)
        if trainer.is_global_zero:
            self._write(trainer)
        log_values(trainer, {"train/loss": train_loss, "optim/lr": lr})

    def state_dict(self) -> dict[str, Any]:
        """Return the state for a checkpoint: the epochs so far, and the current one."""
        return {name: getattr(self, name) for name in self.STATE}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the state of a checkpoint."""
        for name in self.STATE:
            setattr(self, name, state_dict[name])

    def _write(self, trainer: pl.Trainer) -> None:
        try:
            write_text(self.path, self._csv())
        except OSError as error:
            if not self.warn_on_write_error:
                raise
            print_once(trainer, f"warning: {self.path}: cannot be written: {error.strerror}; training continues")

    def write_if_empty(self, trainer: pl.Trainer) -> None:
        """Write only the header if no epoch was trained."""
        if not self.rows:
            self._write(trainer)

    @property
    def had_validation(self) -> bool:
        """Whether the current epoch had a validation."""
        return self.score in self._validation

    def best_validation(self, score: float) -> tuple[int, int, float, float] | None:
        """Return the first validation with this score; None if there is none."""
        return next((validation for validation in self.validations if validation[2] == score), None)

    def last_logged(self) -> dict[str, float | None]:
        """Return the last value of each metric that the user's own callbacks, losses and models logged."""
        return {name: value for row in self.rows for name, value in row.items() if name not in METRICS_COLUMNS}

    def _newly_logged(self, trainer: pl.Trainer) -> dict[str, float]:
        """Return all numbers logged by `self.log` since the last call. The Trainer keeps each metric until it is logged
        again, and a resumed run does not have it. A metric that is logged by step and by epoch is returned once."""
        kept = dict(trainer.callback_metrics)
        earlier, self._earlier = self._earlier, kept
        metrics = {
            name: float(value)
            for name, value in kept.items()
            if value.numel() == 1 and not (name in earlier and value.is_set_to(earlier[name]))
        }
        return {
            name: value
            for name, value in metrics.items()
            if not (name.endswith(("_step", "_epoch")) and name.rpartition("_")[0] in metrics)
        }

    def _csv(self) -> str:
        file = io.StringIO()
        others = sorted({name for row in self.rows for name in row} - {*METRICS_COLUMNS})
        writer = csv.DictWriter(file, [*METRICS_COLUMNS, *others], lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows)
        return file.getvalue()


class Throughput(Callback):
    """Counts the tokens and seconds of training steps, without validations and checkpoints, and logs tokens per second.

    The first process counts the tokens of all processes.
    """

    STATE = ("tokens", "seconds", "_epoch_tokens", "_epoch_seconds")

    def __init__(self) -> None:
        self.tokens = 0
        self.seconds = 0.0
        """Tokens and seconds of all completed epochs."""
        self._epoch_tokens = 0
        self._epoch_seconds = 0.0
        self._clock = 0.0
        self._saving = False

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the clock, also in the middle of an epoch."""
        self._clock = time.perf_counter()
        if not trainer.is_global_zero:  # all processes load the checkpoint, which has the token count of all of them
            self._epoch_tokens = 0

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Reset the counts of the epoch."""
        self._epoch_tokens, self._epoch_seconds = 0, 0.0
        self._clock = time.perf_counter()

    def on_train_batch_start(self, trainer: pl.Trainer, *arguments: Any) -> None:
        """Restart the clock after a checkpoint."""
        if self._saving:
            self._clock, self._saving = time.perf_counter(), False

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count the tokens and the time of the step."""
        self._epoch_tokens += batch.tokens
        now = time.perf_counter()
        self._epoch_seconds += now - self._clock
        self._clock = now

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Restart the clock."""
        self._clock = time.perf_counter()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Add the epoch to the totals, and log its tokens per second."""
        tokens = sum_over_processes(trainer, self._epoch_tokens)
        self.tokens += tokens
        self.seconds += self._epoch_seconds
        log_values(trainer, {"perf/tokens_per_s": tokens / self._epoch_seconds if self._epoch_seconds else 0.0})

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Exclude the time of saving, and save the token count of all processes."""
        self._saving = True
        if trainer.world_size > 1:
            tokens = sum_over_processes(trainer, self._epoch_tokens)
            self._epoch_tokens = tokens if trainer.is_global_zero else 0
            checkpoint["callbacks"][self.state_key] = self.state_dict()

    def state_dict(self) -> dict[str, Any]:
        """Return the state for a checkpoint."""
        return {name: getattr(self, name) for name in self.STATE}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the state of a checkpoint."""
        for name in self.STATE:
            setattr(self, name, state_dict[name])

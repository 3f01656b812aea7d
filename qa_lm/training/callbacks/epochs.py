"""What happens around the steps: the record of epochs, the words on the screen, the progress bar."""

import csv
import io
import sys
import time
from pathlib import Path
from typing import Any, ClassVar

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback, EarlyStopping, ModelCheckpoint, TQDMProgressBar

from qa_lm.config.validate import MONITORS
from qa_lm.errors import UserError
from qa_lm.modeling.epoch_metrics import RECALL_THEN_LOSS
from qa_lm.modeling.module import CausalLMModule
from qa_lm.run.atomic import write_text
from qa_lm.training.callbacks.distributed import sum_over_processes
from qa_lm.training.callbacks.why_stopped import why_stopped
from qa_lm.training.logging.loggers import log_values

EpochRow = dict[str, int | float | None]


class EpochRecord(Callback):
    """Keeps a row per epoch, writes metrics.csv, and logs what the module itself does not.

    The rows hold no times, so that two runs with one seed write the same file.

    Args:
        path: metrics.csv.
        log_every_n_steps: optimizer steps between two logs of the step's own loss; 0 for none.
        score: what the best checkpoint is chosen by.
        go_on: whether a file that cannot be written is only told; the next epoch writes all of it.
    """

    COLUMNS: ClassVar = {
        "val_loss": "val/loss",
        "val_exact_match": "val/exact_match",
        "val_bits_per_answer_byte": "val/bits_per_answer_byte",
        "train_recall": "train/recall",
    }
    """Columns that the module logs, with its names for them. Whatever else is logged has a column of its own name."""
    KNOWN = ("epoch", "step", "train_loss", *COLUMNS, "learning_rate")
    OURS = frozenset({*COLUMNS.values(), "train/loss", RECALL_THEN_LOSS})
    STATE = ("rows", "validations", "train_tokens", "train_seconds", "_epoch_tokens", "_epoch_seconds", "_validation")

    def __init__(self, path: Path, log_every_n_steps: int, score: str, go_on: bool = False) -> None:
        self.path, self.go_on = path, go_on
        self.rows: list[EpochRow] = []
        self.score = score
        self.validations: list[tuple[int, int, float, float]] = []
        """Epoch, step, score and `val/loss` of each validation."""
        self.log_every_n_steps = log_every_n_steps
        self.train_tokens = 0
        self.train_seconds = 0.0
        self._epoch_tokens = 0
        self._epoch_seconds = 0.0
        self._validation: dict[str, float] = {}  # what the epoch's newest validation logged
        self._clock = 0.0
        self._saving = False

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Log in the module's place: Lightning logs an epoch only after the checkpoint at its end."""
        assert isinstance(pl_module, CausalLMModule)
        pl_module.log_to_loggers = False

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the clock, also within an epoch."""
        self._clock = time.perf_counter()
        if not trainer.is_global_zero:  # a checkpoint is loaded by all processes, and holds the tokens of all
            self._epoch_tokens = 0

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the epoch."""
        self._epoch_tokens, self._epoch_seconds = 0, 0.0
        self._validation = {}
        self._clock = time.perf_counter()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count tokens; log the loss every `log_every_n_steps` steps."""
        assert isinstance(pl_module, CausalLMModule)
        self._epoch_tokens += batch.tokens
        now = time.perf_counter()
        self._epoch_seconds += now - self._clock
        self._clock = now
        if self.log_every_n_steps and trainer.global_step % self.log_every_n_steps == 0:
            log_values(trainer, {"train/loss_step": float(pl_module.step_loss)})

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Leave its time out; let it hold the tokens of all processes."""
        self._saving = True
        if trainer.world_size > 1:
            tokens = sum_over_processes(trainer, self._epoch_tokens)
            self._epoch_tokens = tokens if trainer.is_global_zero else 0
            checkpoint["callbacks"][self.state_key] = self.state_dict()

    def on_train_batch_start(self, trainer: pl.Trainer, *arguments: Any) -> None:
        """Go on with the clock after a checkpoint."""
        if self._saving:
            self._clock, self._saving = time.perf_counter(), False

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Keep and log what it found; the Trainer would keep it beyond its epoch, and lose it in an interruption."""
        self._clock = time.perf_counter()
        if trainer.sanity_checking:
            return
        found = _logged(trainer)
        if self.score not in self.OURS and self.score not in found:
            others = ", ".join(sorted({*found, *MONITORS} - {RECALL_THEN_LOSS}))
            raise UserError(f"monitor={self.score}: nothing logged it in this validation; there is {others}", "monitor")
        self._validation = found
        if self.score in found:
            score, loss = found[self.score], found.get("val/loss", float("nan"))
            self.validations.append((trainer.current_epoch + 1, trainer.global_step, score, loss))
        log_values(trainer, {name: value for name, value in found.items() if name in self.OURS})

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Add the epoch's row; write and log it."""
        assert isinstance(pl_module, CausalLMModule)
        seconds = self._epoch_seconds
        tokens = sum_over_processes(trainer, self._epoch_tokens)
        self.train_tokens += tokens
        self.train_seconds += seconds
        train_loss = pl_module.epoch_train_loss()
        optimizer = trainer.optimizers[0]
        row: EpochRow = {
            "epoch": trainer.current_epoch + 1,
            "step": trainer.global_step,
            "train_loss": train_loss,
            **{column: self._validation.get(name) for column, name in self.COLUMNS.items()},
            "learning_rate": optimizer.param_groups[0]["lr"],
        }
        logged = self._validation | _logged(trainer)
        row |= {name: value for name, value in logged.items() if name not in self.OURS}
        self.rows.append(row)
        if trainer.is_global_zero:
            self._write(trainer)
        perf = tokens / seconds if seconds else 0.0
        extra = {"train/loss": train_loss, "perf/tokens_per_s": perf, "optim/lr": optimizer.param_groups[0]["lr"]}
        log_values(trainer, extra)

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps: the epochs so far, and the one that is going on."""
        return {name: getattr(self, name) for name in self.STATE}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on with it."""
        for name in self.STATE:
            setattr(self, name, state_dict[name])

    def _write(self, trainer: pl.Trainer) -> None:
        try:
            write_text(self.path, self._csv())
        except OSError as error:
            if not self.go_on:
                raise
            say(trainer, f"warning: {self.path}: cannot be written: {error.strerror}; training continues")

    def write_if_empty(self, trainer: pl.Trainer) -> None:
        """Write the header alone where there was no epoch."""
        if not self.rows:
            self._write(trainer)

    @property
    def had_validation(self) -> bool:
        """Whether the epoch that has just ended had a validation."""
        return self.score in self._validation

    def best_validation(self, score: float) -> tuple[int, int, float, float] | None:
        """The first validation with this score; None if there was none."""
        return next((each for each in self.validations if each[2] == score), None)

    def last_logged(self) -> dict[str, float | None]:
        """What callbacks, losses and models of the user logged in the last epoch."""
        return {name: value for name, value in self.rows[-1].items() if name not in self.KNOWN} if self.rows else {}

    def _csv(self) -> str:
        file = io.StringIO()
        others = sorted({name for row in self.rows for name in row} - {*self.KNOWN})
        writer = csv.DictWriter(file, [*self.KNOWN, *others], lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows)
        return file.getvalue()


def _logged(trainer: pl.Trainer) -> dict[str, float]:
    """All numbers that were logged by `self.log`; a metric that is logged by step and by epoch counts once."""
    found = {name: value for name, value in trainer.callback_metrics.items() if value.numel() == 1}
    return {
        name: float(value)
        for name, value in found.items()
        if not (name.endswith(("_step", "_epoch")) and name.rpartition("_")[0] in found)
    }


class ConsoleReport(Callback):
    """Says each epoch how it went, and in words when and why training stopped.

    Must stand after `EpochRecord` and `EarlyStopping`.
    """

    def __init__(self, record: EpochRecord, early_stopping: EarlyStopping | None, best: ModelCheckpoint) -> None:
        self.record, self.early_stopping, self.best = record, early_stopping, best
        self._best_score: float | None = None

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """One line for the epoch."""
        row = self.record.rows[-1]
        epochs = f"/{trainer.max_epochs}" if trainer.max_epochs and trainer.max_epochs > 0 else ""
        words = [
            f"epoch {row['epoch']:>{len(epochs) - 1 if epochs else 1}}{epochs}",
            f"train loss {row['train_loss']:.4f}",
        ]
        if row["val_loss"] is not None:
            words.append(f"val loss {row['val_loss']:.4f}")
        if self.record.had_validation:
            if self.best.monitor == "val/exact_match":
                words.append(f"exact match {row['val_exact_match']:.1%}")
            if self.best.monitor == RECALL_THEN_LOSS:
                words.append(f"recall {row['train_recall']:.1%}")
            words += self._verdict()
        say(trainer, "   ".join(words))

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {"best_score": self._best_score}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on with it."""
        self._best_score = state_dict["best_score"]

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Why it ended before its last epoch."""
        for line in why_stopped(trainer, self.early_stopping):
            say(trainer, line)

    def _verdict(self) -> list[str]:
        # The best state is found when validation ends, which was before this line.
        score = None if self.best.best_model_score is None else float(self.best.best_model_score)
        if score is None:  # a trial run keeps no checkpoints
            return []
        if score != self._best_score:
            self._best_score = score
            found = self.record.best_validation(score)
            return [f"improved at step {found[1]:,}" if found and found != self.record.validations[-1] else "improved"]
        if self.early_stopping is None:
            return ["no improvement"]
        return [f"no improvement ({self.early_stopping.wait_count}/{self.early_stopping.patience})"]


class RunningLossBar(TQDMProgressBar):
    """Lightning's bar, with the running train loss and epochs counted from 1."""

    def on_train_epoch_start(self, trainer: pl.Trainer, *arguments: Any) -> None:
        """Name the epoch as the epoch lines do."""
        super().on_train_epoch_start(trainer, *arguments)
        self.train_progress_bar.set_description(f"epoch {trainer.current_epoch + 1}")

    def get_metrics(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule
    ) -> dict[str, int | str | float | dict[str, float]]:
        """The mean loss of the epoch so far."""
        assert isinstance(pl_module, CausalLMModule)
        return {"train loss": f"{pl_module.running_train_loss():.4f}"}


def say(trainer: pl.Trainer, line: str) -> None:
    """Print once, whatever the number of processes, without tearing a progress bar."""
    if not trainer.is_global_zero:
        return
    if isinstance(trainer.progress_bar_callback, TQDMProgressBar) and trainer.progress_bar_callback.is_enabled:
        trainer.progress_bar_callback.print(line, file=sys.stdout)
        sys.stdout.flush()
    else:
        print(line, flush=True)

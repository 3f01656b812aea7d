"""What happens around the steps: the record of epochs, the words on the screen, the progress bar."""

import csv
import io
import sys
import time
from pathlib import Path
from typing import Any, ClassVar

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback, EarlyStopping, ModelCheckpoint, TQDMProgressBar

from qa_lm.modeling.module import RECALL_THEN_LOSS, CausalLMModule
from qa_lm.training.run_folder import write_text

EpochRow = dict[str, int | float | None]


class EpochRecord(Callback):
    """Keeps a row per epoch, writes metrics.csv, and logs what the module itself does not.

    The rows hold no times, so that two runs with one seed write the same file.

    Args:
        path: metrics.csv.
        log_every_n_steps: optimizer steps between two logs of the step's own loss.
        score: what the best checkpoint is chosen by, kept for each epoch.
        go_on: whether a file that cannot be written is only told; the next epoch writes all of it.
    """

    COLUMNS: ClassVar = {
        "val_loss": "val/loss",
        "val_exact_match": "val/exact_match",
        "val_bits_per_answer_byte": "val/bits_per_answer_byte",
        "train_recall": "train/recall",
    }
    """Columns that the module logs, with its names for them."""
    STATE = ("rows", "scores", "train_tokens", "train_seconds", "_epoch_tokens", "_epoch_seconds", "_validation")

    def __init__(self, path: Path, log_every_n_steps: int, score: str, go_on: bool = False) -> None:
        self.path, self.go_on = path, go_on
        self.rows: list[EpochRow] = []
        self.score = score
        self.scores: list[float | None] = []
        self.log_every_n_steps = log_every_n_steps
        self.train_tokens = 0
        self.train_seconds = 0.0
        self._epoch_tokens = 0
        self._epoch_seconds = 0.0
        self._validation: dict[str, float] = {}  # what the epoch's newest validation logged
        self._clock = 0.0
        self._saving = False

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the clock, also within an epoch."""
        self._clock = time.perf_counter()

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
        if trainer.loggers and trainer.global_step % self.log_every_n_steps == 0:
            for logger in trainer.loggers:
                logger.log_metrics({"train/loss_step": float(pl_module.step_loss)}, step=trainer.global_step)

    def on_save_checkpoint(self, trainer: pl.Trainer, *arguments: Any) -> None:
        """Leave its time out."""
        self._saving = True

    def on_train_batch_start(self, trainer: pl.Trainer, *arguments: Any) -> None:
        """Go on with the clock after a checkpoint."""
        if self._saving:
            self._clock, self._saving = time.perf_counter(), False

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Keep and log what it found; the Trainer would keep it beyond its epoch, and lose it in an interruption."""
        self._clock = time.perf_counter()
        if trainer.sanity_checking:
            return
        names = [*self.COLUMNS.values(), self.score]
        found = {name: float(trainer.callback_metrics[name]) for name in names if name in trainer.callback_metrics}
        self._validation = found
        for logger in trainer.loggers:
            logger.log_metrics(found, step=trainer.global_step)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Add the epoch's row; write and log it."""
        assert isinstance(pl_module, CausalLMModule)
        seconds = self._epoch_seconds
        self.train_tokens += self._epoch_tokens
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
        self.rows.append(row)
        self.scores.append(self._validation.get(self.score))
        if trainer.is_global_zero:
            self._write(trainer)
        perf = self._epoch_tokens / seconds if seconds else 0.0
        extra = {"train/loss": train_loss, "perf/tokens_per_s": perf, "optim/lr": optimizer.param_groups[0]["lr"]}
        for logger in trainer.loggers:
            logger.log_metrics(extra, step=trainer.global_step)

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
            say(trainer, f"warning: {self.path}: cannot be written: {error.strerror}; training goes on")

    def _csv(self) -> str:
        file = io.StringIO()
        writer = csv.DictWriter(file, fieldnames=list(self.rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows)
        return file.getvalue()


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
            if self.best.monitor == "val/exact_match":
                words.append(f"exact match {row['val_exact_match']:.1%}")
            if self.best.monitor == RECALL_THEN_LOSS:
                words.append(f"recall {row['train_recall']:.1%}")
            words.append(self._verdict())
        say(trainer, "   ".join(words))

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {"best_score": self._best_score}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on with it."""
        self._best_score = state_dict["best_score"]

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """The early stop, if it was one."""
        stopping = self.early_stopping
        if stopping is None or stopping.stopped_epoch == 0:
            return
        if stopping.wait_count >= stopping.patience:
            say(
                trainer,
                f"Stopped early: {stopping.monitor} has not improved on {float(stopping.best_score):.4f} "
                f"for {stopping.patience} epochs in a row.",
            )
        else:
            say(trainer, f"Stopped early: {stopping.monitor} is no longer a finite number.")

    def _verdict(self) -> str:
        # The best state is found when validation ends, which was before this line.
        score = None if self.best.best_model_score is None else float(self.best.best_model_score)
        if score != self._best_score:
            self._best_score = score
            return "improved"
        if self.early_stopping is None:
            return "no improvement"
        return f"no improvement ({self.early_stopping.wait_count}/{self.early_stopping.patience})"


class RecallStopping(Callback):
    """Ends training when the recall of the trained sample has reached a share in two validations in a row.

    It also ends once the schedule of the learning rate is over and recall no longer grows: what is not known then is
    not learnt at so low a rate.

    Args:
        threshold: the share.
    """

    VALIDATIONS = 2
    """One alone may be luck: near the end recall still moves by half a percent from epoch to epoch."""
    PATIENCE = 3
    """Validations after the schedule's end in which recall may stay below its best before training ends."""

    def __init__(self, threshold: float) -> None:
        self.threshold, self.in_a_row = threshold, 0
        self.schedule_epochs = float("inf")
        """Epochs after which the learning rate no longer changes."""
        self.best, self.without_gain = -1.0, 0

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Count, and stop."""
        if trainer.sanity_checking:
            return
        recall = float(trainer.callback_metrics["train/recall"])
        self.in_a_row = self.in_a_row + 1 if recall >= self.threshold else 0
        over = trainer.current_epoch + 1 > self.schedule_epochs
        self.without_gain = self.without_gain + 1 if over and recall <= self.best else 0
        self.best = max(self.best, recall)
        if self.reached or self.given_up:
            trainer.should_stop = True

    @property
    def reached(self) -> bool:
        """Whether recall is there."""
        return self.in_a_row >= self.VALIDATIONS

    @property
    def given_up(self) -> bool:
        """Whether recall will not come there."""
        return self.without_gain >= self.PATIENCE

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Say so."""
        if self.reached:
            say(
                trainer,
                f"Stopped: recall of the trained sample was at least {self.threshold:.1%} in {self.VALIDATIONS} "
                "validations in a row.",
            )
        elif self.given_up:
            say(
                trainer,
                f"Stopped: recall of the trained sample stays at {self.best:.1%}, below {self.threshold:.1%}. A "
                "larger model (model.hidden_size, model.layers) or more epochs (optimizer.schedule_epochs) may help.",
            )

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {"in_a_row": self.in_a_row, "best": self.best, "without_gain": self.without_gain}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on counting."""
        self.in_a_row, self.best = state_dict["in_a_row"], state_dict["best"]
        self.without_gain = state_dict["without_gain"]


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

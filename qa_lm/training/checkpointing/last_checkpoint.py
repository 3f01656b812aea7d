"""`last.ckpt`: the state from which a run goes on as if it had never been interrupted, bit for bit.

Lightning's own checkpoints lack what this one adds: the random numbers of every process, where in its epoch the data
stands, the epoch's sums, whether training was about to stop, and the TensorBoard values of the last step. It is saved
when enough time or steps have passed, at an interruption and at the end, and only where the state is whole:

| point | when | on going on |
|---|---|---|
| batch | after an optimizer step, where neither a validation nor the epoch's end follows | the next batch |
| validation | before a validation or within it | the validation from its beginning |
| validated | after a validation | the next batch, or the end of the epoch |
| epoch | after an epoch, unless the validation at its end was saved | the next epoch |

Gradients of a half-filled accumulation window are never saved: an interruption waits for the window's end.
"""

import signal
import time
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Checkpoint, ModelCheckpoint

from qa_lm.modeling.module import CausalLMModule
from qa_lm.modeling.sums import Sums
from qa_lm.run.checkpoint import STATE
from qa_lm.training.callbacks.distributed import gathered
from qa_lm.training.checkpointing.checkpoints import DirectCheckpointIO
from qa_lm.training.checkpointing.interruption import Interrupted, Interruption
from qa_lm.training.checkpointing.random_state import random_state, restore_random_state
from qa_lm.training.logging.tensorboard import EventsLogger

BATCH, VALIDATION, VALIDATED, EPOCH = "batch", "validation", "validated", "epoch"


class LastCheckpoint(Checkpoint):
    """Saves `last.ckpt`, ends training where a signal asks for it, and puts the state back.

    As a `Checkpoint` it is called after all other callbacks, so what they did is part of what it saves.

    Args:
        path: where to save.
        files: what saves, and keeps the best state.
        interruption: the notes that signals leave.
        every_seconds: most seconds of training between two saves; None for any.
        every_steps: most optimizer steps between two saves; None for any.
    """

    SOON = 0.8
    """Share of `every_seconds` after which a new best state is saved at once: later it would take a file of its own."""

    def __init__(
        self,
        path: Path,
        files: DirectCheckpointIO,
        interruption: Interruption,
        every_seconds: float | None,
        every_steps: int | None,
    ) -> None:
        self.path, self.files, self.interruption = path, files, interruption
        self.every_seconds, self.every_steps = every_seconds, every_steps
        self._point = VALIDATED  # the best state is handed on by its own callback, after a validation
        self._restored: dict[str, Any] | None = None
        self._saved: tuple[int, int] | None = None  # epoch and step of the newest save
        self._saved_at, self._saved_step = 0.0, 0
        self._whole = True  # no accumulation window is half filled

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Listen to signals; put back what Lightning does not."""
        assert isinstance(pl_module, CausalLMModule)
        self.interruption.listen()
        self._saved_at, self._saved_step = time.monotonic(), trainer.global_step
        if self._restored is None:
            return
        state, self._restored = self._restored, None
        own = state["processes"][trainer.global_rank]
        pl_module.train_sums = Sums(own["train_sums"].to(pl_module.device, copy=True))
        pl_module.step_loss = state["step_loss"].to(pl_module.device, copy=True)
        trainer.should_stop = state["should_stop"]
        for logger in trainer.loggers:
            if isinstance(logger, EventsLogger):
                logger.log_again(state["events"])
        restore_random_state(own["random"])

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save where it is due or asked for; what precedes a validation or the epoch's end is saved there."""
        last = trainer.is_last_batch or trainer.global_step == trainer.max_steps
        self._whole = last or (batch_idx + 1) % trainer.accumulate_grad_batches == 0
        if self._whole and not last and not _validation_follows(trainer):
            self._save_if_wanted(trainer, BATCH)

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save where it is due or asked for."""
        if not trainer.sanity_checking and self._whole:
            self._save_if_wanted(trainer, VALIDATION)

    def on_validation_batch_end(self, trainer: pl.Trainer, *arguments: Any) -> None:
        """Save where it is asked for."""
        if not trainer.sanity_checking and self._whole:
            self._save_if_wanted(trainer, VALIDATION, only_to_end=True)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save where it is due or asked for, or training ends here; else keep a new best state in memory.

        If training is about to stop, the epoch's end is what must not be missed: it is saved there.
        """
        if trainer.sanity_checking:
            return
        wished = any(self._wishes(trainer))
        ends = _steps_are_over(trainer) or (trainer.is_last_batch and _is_last_epoch(trainer))
        if self._whole and not trainer.should_stop and (wished or ends):
            self._save(trainer, VALIDATED)
        self.files.keep_best(self.path.parent)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save what no validation has saved, where it is due or asked for, or training ends here."""
        stop, due = self._wishes(trainer)
        if self._saved != (trainer.current_epoch, trainer.global_step):
            ends = trainer.should_stop or _steps_are_over(trainer) or _is_last_epoch(trainer)
            if stop or due or ends:
                self._save(trainer, EPOCH)
        elif stop:
            raise Interrupted(self.interruption.requested or signal.SIGTERM)

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Add the rest of the state to a checkpoint, this one or the best."""
        assert isinstance(pl_module, CausalLMModule)
        own = {"random": random_state(), "train_sums": pl_module.train_sums.values.cpu()}
        for logger in trainer.loggers:  # a run that is killed after this and resumed has no gap in its curves
            logger.save()
        events = [logger.newest for logger in trainer.loggers if isinstance(logger, EventsLogger)]
        checkpoint[STATE] = {
            "point": self._point,
            "epoch": trainer.current_epoch,
            "batches": trainer.fit_loop.epoch_loop.batch_idx + 1,
            "should_stop": trainer.should_stop,
            "step_loss": pl_module.step_loss.cpu(),
            "events": events[0] if events else {},
            "processes": gathered(trainer, own),
        }

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Tell Lightning's loops and the data where to go on; the rest waits for training to start."""
        self._restored = state = checkpoint[STATE]
        if state["point"] in (VALIDATED, EPOCH):
            self._saved = (state["epoch"], checkpoint["global_step"])
        over = state["point"] == EPOCH
        trainer.datamodule.begin_at(state["epoch"] + over, 0 if over else state["batches"])  # type: ignore[attr-defined]
        _point_loops(checkpoint["loops"]["fit_loop"], state["point"])
        for callback in trainer.checkpoint_callbacks:
            if isinstance(callback, ModelCheckpoint):
                best = checkpoint["callbacks"][callback.state_key]
                _move(best, str(callback.dirpath))
                callback.current_score = best["current_score"]  # which Lightning saves but does not load

    def _save_if_wanted(self, trainer: pl.Trainer, point: str, only_to_end: bool = False) -> None:
        stop, due = self._wishes(trainer)
        if stop or (due and not only_to_end):
            self._save(trainer, point)

    def _save(self, trainer: pl.Trainer, point: str) -> None:
        self._point = point
        trainer.save_checkpoint(self.path)
        self._point = VALIDATED
        self._saved = (trainer.current_epoch, trainer.global_step) if point in (VALIDATED, EPOCH) else None
        self._saved_at, self._saved_step = time.monotonic(), trainer.global_step
        if self._wishes(trainer)[0]:
            raise Interrupted(self.interruption.requested or signal.SIGTERM)

    def _wishes(self, trainer: pl.Trainer) -> tuple[bool, bool]:
        """Whether training is to end, and whether a save is due; all processes are told the same."""
        stop = self.interruption.requested is not None
        wishes = torch.tensor([stop, self._due(trainer)], dtype=torch.float32)
        if trainer.world_size > 1:
            total = trainer.strategy.reduce(wishes.to(trainer.strategy.root_device), reduce_op="sum")
            assert isinstance(total, torch.Tensor)
            wishes = total.cpu()
        stop, due = (wishes > 0).tolist()
        return stop, due

    def _due(self, trainer: pl.Trainer) -> bool:
        """Whether this process wants to save."""
        steps, seconds = trainer.global_step - self._saved_step, time.monotonic() - self._saved_at
        if self.every_steps is not None and steps >= self.every_steps:
            return True
        if not self.files.best.copied and self.files.best.place() is None:
            return True  # best.ckpt is to be written now, and last.ckpt can share its file
        share = 1.0 if self.files.best.copied else self.SOON
        return self.every_seconds is not None and seconds >= share * self.every_seconds


def _is_last_epoch(trainer: pl.Trainer) -> bool:
    return trainer.max_epochs is not None and 0 <= trainer.max_epochs <= trainer.current_epoch + 1


def _steps_are_over(trainer: pl.Trainer) -> bool:
    return 0 <= trainer.max_steps <= trainer.global_step


def _validation_follows(trainer: pl.Trainer) -> bool:
    fetcher = trainer.fit_loop._data_fetcher
    assert fetcher is not None
    return trainer.fit_loop.epoch_loop._should_check_val_fx(fetcher)


def _point_loops(loops: dict[str, Any], point: str) -> None:
    """Change Lightning's saved progress where it would go on elsewhere than at the point."""
    progress = loops["epoch_loop.val_loop.batch_progress"]
    if point == VALIDATION:
        # As if one batch of the validation had been begun: Lightning then runs all of it.
        progress["total"] |= {"ready": 1, "started": 1, "processed": 0, "completed": 0}
        progress["current"] |= {"ready": 0, "started": 0, "processed": 0, "completed": 0}
    else:
        # That batch is still counted in what was saved later in the same epoch, where no validation is to be run again.
        progress["total"] |= dict.fromkeys(("ready", "started", "processed"), progress["total"]["completed"])


def _move(best: dict[str, Any], folder: str) -> None:
    """Let the state of the best checkpoint's callback name the folder where it now is."""
    if best["dirpath"] == folder:
        return

    def moved(path: str) -> str:
        return str(Path(folder) / Path(path).name) if path else path

    for key in ("best_model_path", "kth_best_model_path", "last_model_path"):
        best[key] = moved(best[key])
    best["best_k_models"] = {moved(path): score for path, score in best["best_k_models"].items()}
    best["dirpath"] = folder

"""`last.ckpt`: the state from which a run resumes as if it had never been interrupted, bit for bit.

It adds to Lightning's checkpoint: the random states of every process, the position of the data within the epoch, the
sums of the epoch, whether training was about to stop, and the TensorBoard values of the last step. It is saved after
a number of seconds or steps, at an interruption and at the end, and only where the state is consistent:

| point | when it is saved | what a resumed run does next |
|---|---|---|
| batch | after an optimizer step, unless a validation or the end of the epoch follows | the next batch |
| validation | before or during a validation | the whole validation |
| validated | after a validation | the next batch, or the end of the epoch |
| epoch | after an epoch, unless the validation at its end was saved | the next epoch |

Accumulated gradients are never saved: an interruption waits for the end of the accumulation window.
"""

import random
import signal
import time
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from lightning.pytorch.callbacks import Checkpoint, ModelCheckpoint

from qa_lm.modeling.epoch_metrics import Sums
from qa_lm.modeling.module import CausalLMModule
from qa_lm.run.checkpoint import STATE
from qa_lm.training.checkpointing.checkpoints import DirectCheckpointIO
from qa_lm.training.checkpointing.interruption import Interrupted, SignalHandler
from qa_lm.training.distributed.collectives import all_gathered
from qa_lm.training.logging.tensorboard import EventsLogger

BATCH, VALIDATION, VALIDATED, EPOCH = "batch", "validation", "validated", "epoch"


class LastCheckpoint(Checkpoint):
    """Saves `last.ckpt`, ends training when a signal requests it, and restores the state of a resumed run.

    Lightning calls a `Checkpoint` after all other callbacks, so their changes are part of the saved state.

    Args:
        path: the file to write.
        files: writes the checkpoints, and keeps the best state.
        signals: records the signals that end training.
        every_seconds: maximum seconds of training between two saves; None for no limit.
        every_steps: maximum optimizer steps between two saves; None for no limit.
    """

    EARLY_SAVE_SHARE = 0.8
    """Share of `every_seconds` after which a new best state is saved immediately. Later it would need a second file."""

    def __init__(
        self,
        path: Path,
        files: DirectCheckpointIO,
        signals: SignalHandler,
        every_seconds: float | None,
        every_steps: int | None,
    ) -> None:
        self.path, self.files, self.signals = path, files, signals
        self.every_seconds, self.every_steps = every_seconds, every_steps
        self._point = VALIDATED  # `ModelCheckpoint` saves the best state after a validation
        self._restored: dict[str, Any] | None = None
        self._saved: tuple[int, int] | None = None  # epoch and step of the newest save
        self._saved_at, self._saved_step = 0.0, 0
        self._window_complete = True  # of gradient accumulation

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Install the signal handlers, and restore what Lightning does not."""
        assert isinstance(pl_module, CausalLMModule)
        self.signals.install()
        self._saved_at, self._saved_step = time.monotonic(), trainer.global_step
        if self._restored is None:
            return
        state, self._restored = self._restored, None
        own = _of_this_process(state["processes"], trainer)
        pl_module.train_sums = Sums(own["train_sums"].to(pl_module.device, copy=True))
        pl_module.step_loss = state["step_loss"].to(pl_module.device, copy=True)
        pl_module.gradient_norm = state.get("gradient_norm", torch.zeros(())).to(pl_module.device, copy=True)
        trainer.should_stop = state["should_stop"]
        for logger in trainer.loggers:
            if isinstance(logger, EventsLogger):
                logger.log_again(state["events"])
        if "random" in own:
            restore_random_state(own["random"])

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save if a save is due or requested, unless a validation or the end of the epoch follows and saves."""
        last = trainer.is_last_batch or trainer.global_step == trainer.max_steps
        self._window_complete = last or (batch_idx + 1) % trainer.accumulate_grad_batches == 0
        if self._window_complete and not last and not _validation_follows(trainer):
            self._save_if_needed(trainer, BATCH)

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save if a save is due or requested."""
        if not trainer.sanity_checking and self._window_complete:
            self._save_if_needed(trainer, VALIDATION)

    def on_validation_batch_end(self, trainer: pl.Trainer, *arguments: Any) -> None:
        """Save if a signal requests the end of training."""
        if not trainer.sanity_checking and self._window_complete:
            self._save_if_needed(trainer, VALIDATION, only_to_stop=True)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save if a save is due or requested, or if training ends here. Otherwise keep a new best state in memory.

        If training is about to stop early, the end of the epoch is saved instead.
        """
        if trainer.sanity_checking:
            return
        wanted = any(self._stop_and_due(trainer))
        ends = _reached_max_steps(trainer) or (trainer.is_last_batch and _is_last_epoch(trainer))
        if self._window_complete and not trainer.should_stop and (wanted or ends):
            self._save(trainer, VALIDATED)
        self.files.keep_best(self.path.parent)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save if a save is due or requested, or if training ends here, unless the validation has just saved."""
        stop, due = self._stop_and_due(trainer)
        if self._saved != (trainer.current_epoch, trainer.global_step):
            ends = trainer.should_stop or _reached_max_steps(trainer) or _is_last_epoch(trainer)
            if stop or due or ends:
                self._save(trainer, EPOCH)
        elif stop:
            raise Interrupted(self.signals.requested or signal.SIGTERM)

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Add the rest of the state to `last.ckpt` or `best.ckpt`."""
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
            "gradient_norm": pl_module.gradient_norm.cpu(),
            "events": events[0] if events else {},
            "processes": all_gathered(trainer, own),
            "rows_per_step": trainer.datamodule.batch_size * trainer.world_size,  # type: ignore[attr-defined]
        }

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Set the positions of Lightning's loops and of the data. `on_train_start` restores the rest."""
        self._restored = state = checkpoint[STATE]
        if state["point"] in (VALIDATED, EPOCH):
            self._saved = (state["epoch"], checkpoint["global_step"])
        over = state["point"] == EPOCH
        trainer.datamodule.begin_at(state["epoch"] + over, 0 if over else state["batches"])  # type: ignore[attr-defined]
        _adjust_loops(checkpoint["loops"]["fit_loop"], state["point"])
        for callback in trainer.checkpoint_callbacks:
            if isinstance(callback, ModelCheckpoint):
                best = checkpoint["callbacks"][callback.state_key]
                _relocate(best, str(callback.dirpath))
                callback.current_score = best["current_score"]  # Lightning saves it but does not load it

    def _save_if_needed(self, trainer: pl.Trainer, point: str, only_to_stop: bool = False) -> None:
        stop, due = self._stop_and_due(trainer)
        if stop or (due and not only_to_stop):
            self._save(trainer, point)

    def _save(self, trainer: pl.Trainer, point: str) -> None:
        self._point = point
        trainer.save_checkpoint(self.path)
        self._point = VALIDATED
        self._saved = (trainer.current_epoch, trainer.global_step) if point in (VALIDATED, EPOCH) else None
        self._saved_at, self._saved_step = time.monotonic(), trainer.global_step
        if self._stop_and_due(trainer)[0]:
            raise Interrupted(self.signals.requested or signal.SIGTERM)

    def _stop_and_due(self, trainer: pl.Trainer) -> tuple[bool, bool]:
        """Whether training must stop, and whether a save is due, in any process. All processes get the same result."""
        stop = self.signals.requested is not None
        flags = torch.tensor([stop, self._due(trainer)], dtype=torch.float32)
        if trainer.world_size > 1:
            total = trainer.strategy.reduce(flags.to(trainer.strategy.root_device), reduce_op="sum")
            assert isinstance(total, torch.Tensor)
            flags = total.cpu()
        stop, due = (flags > 0).tolist()
        return stop, due

    def _due(self, trainer: pl.Trainer) -> bool:
        """Whether a save is due in this process."""
        steps, seconds = trainer.global_step - self._saved_step, time.monotonic() - self._saved_at
        if self.every_steps is not None and steps >= self.every_steps:
            return True
        if not self.files.best.copied and self.files.best.device_with_room() is None:
            return True  # best.ckpt must be written now, and last.ckpt can share its file
        share = 1.0 if self.files.best.copied else self.EARLY_SAVE_SHARE
        return self.every_seconds is not None and seconds >= share * self.every_seconds


def _of_this_process(saved: list[dict[str, Any]], trainer: pl.Trainer) -> dict[str, Any]:
    """The saved state of this process. If there are more or fewer now, the first has the sums of all, and those without
    a former one keep their random state."""
    rank = trainer.global_rank
    if len(saved) == trainer.world_size:
        return saved[rank]
    sums = torch.stack([each["train_sums"] for each in saved]).sum(0)
    own = {"train_sums": sums if rank == 0 else torch.zeros_like(sums)}
    return own | ({"random": saved[rank]["random"]} if rank < len(saved) else {})


def _is_last_epoch(trainer: pl.Trainer) -> bool:
    return trainer.max_epochs is not None and 0 <= trainer.max_epochs <= trainer.current_epoch + 1


def _reached_max_steps(trainer: pl.Trainer) -> bool:
    return 0 <= trainer.max_steps <= trainer.global_step


def _validation_follows(trainer: pl.Trainer) -> bool:
    fetcher = trainer.fit_loop._data_fetcher
    assert fetcher is not None
    return trainer.fit_loop.epoch_loop._should_check_val_fx(fetcher)


def _adjust_loops(loops: dict[str, Any], point: str) -> None:
    """Change Lightning's saved progress, so that it resumes at the point of the checkpoint."""
    progress = loops["epoch_loop.val_loop.batch_progress"]
    if point == VALIDATION:
        # As if one batch of the validation had been started: Lightning then runs all of it.
        progress["total"] |= {"ready": 1, "started": 1, "processed": 0, "completed": 0}
        progress["current"] |= {"ready": 0, "started": 0, "processed": 0, "completed": 0}
    else:
        # A later checkpoint of the same epoch still counts that batch, but its validation must not run again.
        progress["total"] |= dict.fromkeys(("ready", "started", "processed"), progress["total"]["completed"])


def _relocate(best: dict[str, Any], folder: str) -> None:
    """Replace the folder in the state of `ModelCheckpoint` by the current one, because run folders can be moved."""
    if best["dirpath"] == folder:
        return

    def relocated(path: str) -> str:
        return str(Path(folder) / Path(path).name) if path else path

    for key in ("best_model_path", "kth_best_model_path", "last_model_path"):
        best[key] = relocated(best[key])
    best["best_k_models"] = {relocated(path): score for path, score in best["best_k_models"].items()}
    best["dirpath"] = folder


def random_state() -> dict[str, Any]:
    """Return the states of the global generators of Python, NumPy and torch, including those of the GPUs."""
    version, numbers, gauss = random.getstate()
    name, keys, position, has_gauss, cached = np.random.get_state()
    assert isinstance(keys, np.ndarray)
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "python": [version, list(numbers), gauss],
        "numpy": [str(name), torch.from_numpy(keys.astype(np.int64)), int(position), int(has_gauss), float(cached)],
    }


def restore_random_state(state: dict[str, Any]) -> None:
    """Restore the states that `random_state` returned."""
    torch.set_rng_state(state["torch"].clone())
    if state["cuda"] and len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(state["cuda"])
    version, numbers, gauss = state["python"]
    random.setstate((version, tuple(numbers), gauss))
    name, keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), position, has_gauss, cached))

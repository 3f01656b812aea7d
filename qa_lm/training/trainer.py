"""The Lightning Trainer of a run with its callbacks."""

import functools
import logging
import math
import sys
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import transformers
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import Callback, EarlyStopping, ModelCheckpoint
from lightning.pytorch.profilers import AdvancedProfiler, PyTorchProfiler, SimpleProfiler

from qa_lm.config.enums import FailedWriteChoice
from qa_lm.config.schema import TrainConfig
from qa_lm.config.trainer_arguments import shards_model
from qa_lm.data.prepare import PreparedData
from qa_lm.data.quality.repeats import answerable
from qa_lm.errors import UserError, first_line
from qa_lm.ledger.callback import Ledger
from qa_lm.modeling.epoch_metrics import EXACT_THEN_LOSS, RECALL_THEN_LOSS
from qa_lm.modeling.module import CausalLMModule
from qa_lm.run import run_folder
from qa_lm.run.checkpoint import read_checkpoint
from qa_lm.run.manifest import is_intact
from qa_lm.run.run_folder import LAST
from qa_lm.training.callbacks.bad_batches import BadBatches
from qa_lm.training.callbacks.board_scalars import BoardScalars, validation_parts
from qa_lm.training.callbacks.console import ConsoleReport, RunningLossBar
from qa_lm.training.callbacks.epochs import EpochRecord, Throughput
from qa_lm.training.callbacks.pruning import trial_pruning
from qa_lm.training.callbacks.recall_stopping import RecallStopping
from qa_lm.training.callbacks.seen_pairs import SeenPairs
from qa_lm.training.checkpointing.checkpoints import DirectCheckpointIO, best_checkpoint
from qa_lm.training.checkpointing.interruption import SignalHandler
from qa_lm.training.checkpointing.last_checkpoint import LastCheckpoint
from qa_lm.training.custom import CustomParts
from qa_lm.training.distributed.strategy import build_strategy, cluster_environment

PROFILERS = {"simple": SimpleProfiler, "advanced": AdvancedProfiler, "pytorch": PyTorchProfiler}


@dataclass(frozen=True)
class TrainerSetup:
    """The Trainer, and the callbacks whose results are used after training."""

    trainer: pl.Trainer
    record: EpochRecord
    throughput: Throughput
    early_stopping: EarlyStopping | None
    recall_stopping: RecallStopping | None
    best: ModelCheckpoint
    seen: SeenPairs
    files: DirectCheckpointIO
    ledger: Ledger | None
    bad_batches: BadBatches


def build_trainer(
    config: TrainConfig,
    folder: Path,
    prepared: PreparedData,
    custom: CustomParts | None = None,
    handle_signals: bool = False,
) -> TrainerSetup:
    """Build the Trainer of a configuration. It will write into the run folder; nothing is written yet.

    Args:
        config: all settings, without open (null) values.
        folder: the run folder.
        prepared: the pairs.
        custom: your own parts, and all loggers. Its callbacks are called before those of the run, which record what
            they log.
        handle_signals: see `SignalHandler`.

    Raises:
        UserError: Lightning refuses a value of `trainer.*`.
    """
    custom = custom or CustomParts()
    score = _score(config)
    best = best_checkpoint(folder / run_folder.CHECKPOINTS, score, config.monitor_mode.value)
    saving, go_on = config.checkpoint, config.checkpoint.failed_write is FailedWriteChoice.go_on
    path, signals = folder / run_folder.CHECKPOINTS / LAST, SignalHandler(handle_signals)
    files = DirectCheckpointIO(go_on, shares_memory=not shards_model(config.trainer))
    last = LastCheckpoint(path, files, signals, saving.every_seconds, saving.every_steps)
    table, every = folder / run_folder.METRICS_BY_EPOCH, config.trainer.get("log_every_n_steps")
    record = EpochRecord(table, 50 if every is None else every, score, go_on)
    early_stopping, recall_stopping = _early_stopping(config), _recall_stopping(config, prepared)
    throughput, ledger, seen = Throughput(), Ledger() if config.ledger else None, SeenPairs()
    board = BoardScalars(validation_parts(prepared) if custom.loggers else {})
    bad_batches = BadBatches(folder / run_folder.BAD_BATCHES, prepared.table)
    own: list[Callback] = [
        *custom.callbacks,  # before the record, which records what they log
        throughput,
        record,
        seen,
        bad_batches,
        *([ledger] if ledger else []),
        board,
        *([early_stopping] if early_stopping else []),
        *([recall_stopping] if recall_stopping else []),
        *trial_pruning(config.monitor),
        ConsoleReport(record, early_stopping, best),
    ]
    arguments = {"enable_autolog_hparams": False} | config.trainer  # log_begin logs them
    # Redirected output gets only the line per epoch.
    if arguments.setdefault("enable_progress_bar", sys.stdout.isatty()):
        own.append(RunningLossBar())
    _replace_names(arguments, folder)
    arguments["strategy"] = build_strategy(config, folder)
    arguments["logger"] = list(custom.loggers) or False
    arguments.setdefault("enable_model_summary", False)
    # None would keep the setting of an earlier Trainer in this process.
    arguments.setdefault("deterministic", False)
    try:
        trainer = pl.Trainer(
            callbacks=[*own, best, last],
            plugins=[files, *cluster_environment()],
            use_distributed_sampler=False,  # qa_lm.data.batches.batching assigns the rows to the processes
            **arguments,
        )
    except (MisconfigurationException, ValueError, TypeError) as error:
        raise UserError(f"trainer: {first_line(error)}") from None
    return TrainerSetup(
        trainer, record, throughput, early_stopping, recall_stopping, best, seen, files, ledger, bad_batches
    )


def _score(config: TrainConfig) -> str:
    """The metric that chooses the best epoch: equal recall is ranked by the loss and, for a pretrained model, which is
    trained for a few epochs only, so is equal exact match of held-out pairs."""
    if config.monitor == "val/exact_match" and config.model.path is not None:
        return EXACT_THEN_LOSS
    return RECALL_THEN_LOSS if config.monitor == "train/recall" else config.monitor


def _recall_stopping(config: TrainConfig, prepared: PreparedData) -> RecallStopping | None:
    if config.stop_at_recall is None:
        return None
    share = functools.partial(answerable, prepared.table, prepared.split.train)
    return RecallStopping(config.stop_at_recall, share, pretrained=config.model.path is not None)


def _replace_names(arguments: dict[str, Any], folder: Path) -> None:
    """Replace the name of a profiler by the profiler, and `overfit_batches` by two limits."""
    if profiler := arguments.get("profiler"):
        arguments["profiler"] = PROFILERS[profiler](dirpath=folder / run_folder.PROFILE, filename=profiler)
    if overfit := arguments.pop("overfit_batches", 0):  # Lightning would replace the sampler
        arguments["limit_train_batches"] = overfit
        arguments["limit_val_batches"] = overfit if isinstance(overfit, int) else 1.0


def _early_stopping(config: TrainConfig) -> EarlyStopping | None:
    if config.early_stopping.patience is None:
        return None
    return EarlyStopping(
        monitor=config.monitor if config.model.path is None else _score(config),
        patience=config.early_stopping.patience,
        mode=config.monitor_mode.value,
        check_on_train_epoch_end=False,
    )


def restore_best(module: CausalLMModule, setup: TrainerSetup) -> None:
    """Load the best weights into the module, from memory or from the file. The last weights stay without a validation,
    without a finite score, or if the best weights are lost."""
    path, best, score = setup.best.best_model_path, setup.files.best, setup.best.best_model_score
    if not path or score is None or best.step == setup.trainer.global_step:
        return
    if not math.isfinite(score):
        print(f"warning: {setup.best.monitor} was never finite, so no epoch is the best; model/ holds the last weights")
        return
    if best.state is not None:
        module.load_state_dict(best.state["state_dict"], strict=module.strict_loading)
    elif not best.written:
        print(f"warning: {path} could not be written; model/ holds the last weights instead", flush=True)
    elif is_intact(Path(path)) is False:
        print(f"warning: {path} is DAMAGED; model/ holds the last weights instead", flush=True)
    else:
        checkpoint = read_checkpoint(Path(path))
        if checkpoint["global_step"] != setup.trainer.global_step:
            module.load_state_dict(checkpoint["state_dict"], strict=module.strict_loading)


def quiet_lightning() -> None:
    """Silence Lightning's messages about hardware and other products. Relevant warnings stay."""
    transformers.utils.logging.disable_progress_bar()
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for message in (
        ".*does not have many workers.*",
        ".*exists and is not empty.*",
        ".*is smaller than the logging interval.*",
        ".*treespec, LeafSpec.*",
        ".*MLFlow only allows.*Replacing.*",
        ".*your dataloader is not resumable.*",  # the data module is
        ".*recommended to use `self.log.*sync_dist=True.*",  # the sums are of all processes already
    ):
        warnings.filterwarnings("ignore", message=message)

"""`qa_lm.train`: train from Python, without side effects on the process."""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import Logger

from qa_lm.api.run import Run
from qa_lm.config.compose import new_folder, read_config
from qa_lm.config.overrides import checked_copy
from qa_lm.config.resume import AUTO, resumed_config
from qa_lm.config.schema import TrainConfig
from qa_lm.config.validate import check_values
from qa_lm.data.batches.datamodule import PairsDataModule
from qa_lm.errors import UserError
from qa_lm.modeling.hyperparameters import OptimizerFactory
from qa_lm.modeling.module import Loss
from qa_lm.reporting.loss_curve import draw_loss_curve
from qa_lm.reporting.run.report import write_report
from qa_lm.run import run_folder
from qa_lm.training import train as training
from qa_lm.training.checkpointing.resume import completed_run
from qa_lm.training.custom import CustomParts, ModelSource
from qa_lm.training.early_checks import check_early


def train(
    config: TrainConfig,
    folder: str | Path | None = None,
    *,
    model: ModelSource | None = None,
    optimizer: OptimizerFactory | None = None,
    loss: Loss | None = None,
    datamodule: Callable[..., PairsDataModule] | None = None,
    callbacks: Sequence[Callback] = (),
    loggers: Sequence[Logger] = (),
) -> Run:
    """Train, evaluate, and write the run folder with its report.

    Signal handlers, warning filters and the memory allocator are not changed: Ctrl-C raises KeyboardInterrupt as usual.
    The random seeds of Python, NumPy and torch are set to `config.seed`.

    Args:
        config: all settings, from `qa_lm.compose`. It is not changed.
        folder: the run folder, created if it does not exist; None for a new one, `outputs/DATE/TIME`. With
            `resume=auto` in the settings, a run in the folder is resumed.
        model: a `PreTrainedModel` class, whose config class gets the settings `model.*`; or a function of `vocab_size`,
            `context` and `eos_id` that returns a model (`qa_lm.modeling.custom_model`).
        optimizer: a function from the model to its optimizer; the settings keep the schedule.
        loss: what training minimises, from hidden states, head and batch to `LossSums` (`CausalLMModule`).
        datamodule: a subclass of `PairsDataModule`, or a function with its arguments that returns one.
        callbacks: additional callbacks for Lightning's Trainer.
        loggers: additional loggers for Lightning's Trainer.

    Returns:
        The run. With several processes (`trainer.devices`), the first may still write files when the others return.

    Raises:
        UserError: the settings or the data are invalid, or the folder cannot be used; nothing was trained.
        OutOfMemory: memory is exhausted.
        FailedWrite: a checkpoint cannot be written. Earlier checkpoints are unchanged.
        KeyboardInterrupt: Ctrl-C. The folder has the checkpoints saved so far.
    """
    custom = CustomParts(model, optimizer, loss, datamodule, callbacks, loggers)
    config = checked_copy(config)
    check_early(config)
    given = None if folder is None else Path(folder).expanduser()
    if given and (given / run_folder.CONFIG).is_file() and config.resume is not None:
        before = read_config(given / run_folder.CONFIG)
        config = resumed_config(given, replace(config, resume=AUTO), [])
        check_values(config)
        if over := completed_run(given, before, config):
            print(over.message, flush=True)
            return Run(given)
    path = given or Path(new_folder(time.strftime("outputs/%Y-%m-%d/%H-%M-%S")))
    try:
        training.train(config, path, custom=custom)
    except training.OtherProcess:
        return Run(path)
    except UserError:
        if given is None and not any(path.iterdir()):
            path.rmdir()
        raise
    draw_loss_curve(path)
    write_report(path)
    return Run(path)

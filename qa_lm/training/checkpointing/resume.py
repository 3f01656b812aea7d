"""Resuming a run: its checkpoint, and whether data, tokenizer and model are still the same."""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from qa_lm.config.schema import TrainConfig
from qa_lm.errors import UserError
from qa_lm.modeling.lora import trained_state
from qa_lm.run import run_folder
from qa_lm.run.checkpoint import STATE, read_checkpoint
from qa_lm.training.checkpointing.checkpoints import newest_valid_checkpoint
from qa_lm.training.hardware import process_count

FINAL_FILES = (
    run_folder.METRICS,
    run_folder.ANSWERS,
    run_folder.BOARD,
    run_folder.REPORT_MARKDOWN,
    run_folder.REPORT_HTML,
)
"""Files that a run writes at its end."""


@dataclass(frozen=True)
class RunState:
    """How far the run in a folder has come."""

    exists: bool
    """Whether the folder holds a run."""
    checkpoint: Path | None = None
    """The checkpoint to resume from; None if no checkpoint was saved yet."""
    step: int | None = None
    """Optimizer steps done, as the checkpoint says."""
    rows: int | None = None
    """Rows of a step over all processes, as the checkpoint says."""


def read_run_state(folder: Path, config: TrainConfig, verbose: bool) -> RunState:
    """Find the state to resume from, if the folder holds a run.

    Args:
        folder: the run folder.
        config: all settings. `resume` must be set if the folder holds a run.
        verbose: whether to print messages, and to refuse to overwrite a run: set in one process only.

    Raises:
        UserError: the folder holds a run and `resume` is not set, or all its checkpoints are damaged.
    """
    if not (folder / run_folder.CONFIG).exists():
        return RunState(exists=False)
    if config.resume is None and verbose:
        raise UserError(
            f"{folder}: already holds a run, which would be lost; choose another folder with hydra.run.dir=FOLDER, or "
            f"resume it: resume={folder}"
        )
    newest = newest_valid_checkpoint(folder, rename=verbose)
    step = rows = None
    if newest.path is not None:
        checkpoint = read_checkpoint(newest.path)
        step, rows = int(checkpoint["global_step"]), checkpoint[STATE].get("rows_per_step")
    start = "no checkpoint yet; starting over" if step is None else f"resuming after step {step:,}"
    if verbose:
        print("\n".join([*newest.messages, f"{folder}: {start}"]), flush=True)
    return RunState(True, newest.path, step, rows)


def with_batch_size_of(run: RunState, config: TrainConfig) -> TrainConfig:
    """Divide the batches among the processes of now, if the run was started with another number of them. A step has the
    same pairs, so that the run ends the same.

    Raises:
        UserError: the number of rows of a step cannot be divided.
    """
    processes = process_count(config.trainer)
    if run.rows is None:
        return config
    size, rest = divmod(run.rows, processes)
    if rest:
        raise UserError(
            f"a step of this run has {run.rows} rows, which cannot be divided among {processes} processes; choose "
            "another number of them"
        )
    return replace(config, data=replace(config.data, batch_size=size))


class CompletedRun(NamedTuple):
    """A run with nothing left to do."""

    message: str
    """Why there is nothing to do, for the user."""
    diverged: bool
    """Whether the run failed because its updates were not finite."""


def completed_run(folder: Path, before: TrainConfig, now: TrainConfig) -> CompletedRun | None:
    """Check whether the run in a folder is complete; None if there is something left to do.

    Args:
        folder: the run folder.
        before: the settings of the run.
        now: the new settings.
    """
    metrics = _object(folder / run_folder.METRICS)
    if metrics is None or not isinstance(epochs := metrics.get("epochs_run"), int):
        return None
    if metrics.get("stopped_early"):
        diverged = metrics.get("diverged") is True
        how = "diverged" if diverged else "stopped early"
        return CompletedRun(f"{folder}: this run {how} after {epochs} epochs; there is nothing to resume", diverged)
    max_epochs = now.trainer.get("max_epochs")
    changed = max_epochs != before.trainer.get("max_epochs")
    if changed and (max_epochs is None or max_epochs < 0 or max_epochs > epochs):
        return None
    message = f"{folder}: this run is finished after {epochs} epochs; trainer.max_epochs=N continues up to epoch N"
    return CompletedRun(message, False)


def delete_final_files(folder: Path) -> None:
    """Delete the files that a run writes at its end, because the run continues."""
    for name in FINAL_FILES:
        (folder / name).unlink(missing_ok=True)


def check_same_data(folder: Path, now: dict[str, Any], verbose: bool) -> None:
    """Refuse to resume with other pairs or another tokenizer.

    Args:
        folder: the run folder.
        now: the environment of this process, see `qa_lm.run.environment`.
        verbose: whether to warn about other differences.

    Raises:
        UserError: the pairs, their split or the tokenizer have changed.
    """
    # Without this file the run ended before it was written, and nothing was trained.
    before = _object(folder / run_folder.ENVIRONMENT) or {}
    for key, what in (
        ("data_sha256", "the pairs have changed"),
        ("split_sha256", "the split of the pairs has changed"),
        ("tokenizer_sha256", "the tokenizer has changed"),
        ("base_sha256", "the pretrained model has changed"),
    ):
        if key in before and before[key] != now.get(key):
            sha256 = [str(values.get(key))[:12] for values in (before, now)]
            raise UserError(
                f"{folder}: {what} since this run started (sha256 {sha256[0]}, now {sha256[1]}); "
                "restore the former files, or start a new run"
            )
    different = [
        f"{key}: {before[key]}, now {now[key]}"
        for key in ("threads", "cpu_capability", "gpus", "packages")
        if key in before and before[key] != now[key]
    ]
    if different and verbose:
        print(f"warning: the resumed run will not be bit for bit the same: {'; '.join(different)}", flush=True)


def check_same_model(checkpoint: Path, model: torch.nn.Module) -> None:
    """Refuse a checkpoint of another model.

    Raises:
        UserError: a parameter is missing or has another shape; the message names it.
    """
    saved: dict[str, Tensor] = read_checkpoint(checkpoint)["state_dict"]
    own = trained_state(model)
    for name in [*own, *saved]:
        shapes = [tuple(each[name].shape) if name in each else "missing" for each in (saved, own)]
        if shapes[0] != shapes[1]:
            raise UserError(
                f"{checkpoint}: the model has changed: {name} is {shapes[0]} in the checkpoint and {shapes[1]} now; "
                "start a new run"
            )


def _object(path: Path) -> dict[str, Any] | None:
    """Read a JSON object; None if the file does not hold one."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) else None

"""Going on with a run: which settings may change, and whether data, tokenizer and model are still the same."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from qa_lm.config.schema import TrainConfig
from qa_lm.errors import UserError
from qa_lm.run import run_folder
from qa_lm.run.checkpoint import read_checkpoint
from qa_lm.training.checkpointing.checkpoints import newest_sound

AT_THE_END = (
    run_folder.METRICS,
    run_folder.ANSWERS,
    run_folder.BOARD,
    run_folder.REPORT_MARKDOWN,
    run_folder.REPORT_HTML,
)
"""Files that say that a run is over."""


@dataclass(frozen=True)
class RunSoFar:
    """A run as it stands in its folder."""

    begun: bool
    """Whether the folder holds a run."""
    checkpoint: Path | None = None
    """None if nothing was saved yet."""
    step: int | None = None
    """Optimizer steps done, by the checkpoint."""


def run_so_far(folder: Path, config: TrainConfig, tell: bool) -> RunSoFar:
    """The state to resume from, if the folder holds a run.

    Args:
        folder: the run folder.
        config: `resume` must say so if there is a run.
        tell: whether this process prints what people should know of it, and refuses what must not be lost.

    Raises:
        UserError: the folder holds a run that is not to be resumed, or all its checkpoints are damaged.
    """
    if not (folder / run_folder.CONFIG).exists():
        return RunSoFar(begun=False)
    if config.resume is None and tell:
        raise UserError(
            f"{folder}: already holds a run, which would be lost; choose another folder with hydra.run.dir=FOLDER, or "
            f"resume it: resume={folder}"
        )
    found = newest_sound(folder)
    step = None if found.path is None else int(read_checkpoint(found.path)["global_step"])
    where = "nothing was saved yet; the run begins anew" if step is None else f"going on after step {step:,}"
    if tell:
        print("\n".join([*found.words, f"{folder}: {where}"]), flush=True)
    return RunSoFar(True, found.path, step)


class Finished(NamedTuple):
    """A run with nothing left to do."""

    words: str
    """Why, for people."""
    diverged: bool
    """Whether it ended because its updates were not finite: a failed run."""


def finished(folder: Path, before: TrainConfig, now: TrainConfig) -> Finished | None:
    """Why there is nothing to do in a run folder; None if there is something.

    Args:
        folder: the run folder.
        before: the settings of the run in it.
        now: the settings that are wanted.
    """
    metrics = _object(folder / run_folder.METRICS)
    if metrics is None or not isinstance(epochs := metrics.get("epochs_run"), int):
        return None
    if metrics.get("stopped_early"):
        diverged = metrics.get("diverged") is True
        how = "diverged" if diverged else "stopped early"
        return Finished(f"{folder}: this run {how} after {epochs} epochs; there is nothing to resume", diverged)
    most, was = now.trainer.get("max_epochs"), before.trainer.get("max_epochs")
    if most != was and (most is None or most < 0 or most > epochs):
        return None
    return Finished(f"{folder}: this run is finished after {epochs} epochs; trainer.max_epochs=N trains on to N", False)


def reopen(folder: Path) -> None:
    """Take away what says that the run is over."""
    for name in AT_THE_END:
        (folder / name).unlink(missing_ok=True)


def check_same_data(folder: Path, now: dict[str, Any], tell: bool) -> None:
    """Refuse to go on with other pairs or another tokenizer.

    Args:
        folder: the run folder.
        now: the environment of this process, see `qa_lm.run.environment`.
        tell: whether to warn of what else is different.

    Raises:
        UserError: what has changed.
    """
    # Without an environment the run ended before it was written, and nothing was trained.
    before = _object(folder / run_folder.ENVIRONMENT) or {}
    for key, what in (
        ("data_sha256", "the pairs have changed"),
        ("split_sha256", "the split of the pairs has changed"),
        ("tokenizer_sha256", "the tokenizer has changed"),
    ):
        if key in before and before[key] != now[key]:
            raise UserError(
                f"{folder}: {what} since this run began (sha256 {str(before[key])[:12]}, now {now[key][:12]}); put "
                "back what it had, or start a new run"
            )
    different = [
        f"{key}: {before[key]}, now {now[key]}"
        for key in ("threads", "cpu_capability", "gpus", "packages")
        if key in before and before[key] != now[key]
    ]
    if different and tell:
        print(f"warning: not bit for bit the run that was begun: {'; '.join(different)}", flush=True)


def check_same_model(checkpoint: Path, model: torch.nn.Module) -> None:
    """Refuse weights that are not this model's.

    Raises:
        UserError: names the first parameter that differs.
    """
    saved: dict[str, Tensor] = read_checkpoint(checkpoint)["state_dict"]
    own = model.state_dict()
    for name in [*own, *saved]:
        shapes = [tuple(each[name].shape) if name in each else "missing" for each in (saved, own)]
        if shapes[0] != shapes[1]:
            raise UserError(
                f"{checkpoint}: the model has changed since: {name} is {shapes[0]} there and {shapes[1]} now; start a "
                "new run"
            )


def _object(path: Path) -> dict[str, Any] | None:
    """A JSON object; None if there is none that can be read."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None

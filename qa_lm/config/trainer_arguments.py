"""`trainer.*`: any argument of `lightning.Trainer`, checked before any work, and before Lightning is imported."""

import difflib
import re
import types
from collections.abc import Callable
from typing import Any, Literal, Union, get_args, get_origin

from qa_lm.config.trainer_signature import trainer_parameters
from qa_lm.errors import UserError

REFUSED = {
    "callbacks": "qa_lm sets the callbacks: see early_stopping, checkpoint and monitor",
    "default_root_dir": "the run folder is set by hydra.run.dir=FOLDER",
    "plugins": "qa_lm sets the plugins",
    "inference_mode": "qa_lm sets it",
    "use_distributed_sampler": "qa_lm assigns the rows to the processes itself",
    "barebones": "the run folder needs checkpoints and logs; the progress bar is set by trainer.enable_progress_bar",
    "limit_test_batches": "evaluation.max_pairs limits the pairs that are asked at the end",
    "limit_predict_batches": "evaluation.max_pairs limits the pairs that are asked at the end",
    "model_registry": "the model is written to the run folder",
}
"""Arguments that cannot have their effect here, each with what to use instead."""
ACCELERATORS = ("auto", "cpu", "gpu", "cuda", "mps", "tpu", "hpu")
PRECISIONS = ("32-true", "bf16-mixed", "bf16-true", "64-true")
PROFILERS = ("simple", "advanced", "pytorch")
DURATION = re.compile(r"\d+:\d{1,2}:\d{1,2}:\d{1,2}")
FROM_ZERO = (lambda value: value >= 0, "must be 0 or more")
FROM_ONE = (lambda value: value >= 1, "must be at least 1")
FROM_MINUS_ONE = (lambda value: value >= -1, "must be 0 or more, or -1 for no limit")
BATCHES = (
    lambda value: value >= 0 and (isinstance(value, int) or value <= 1),
    "must be a whole number of batches, or a share from 0.0 to 1.0",
)
VALUES: dict[str, tuple[Callable[[Any], bool], str]] = {
    "accelerator": (lambda value: value in ACCELERATORS, f"must be one of {', '.join(ACCELERATORS)}"),
    "accumulate_grad_batches": FROM_ONE,
    "check_val_every_n_epoch": FROM_ONE,
    "fast_dev_run": FROM_ZERO,
    "gradient_clip_algorithm": (lambda value: value in ("norm", "value"), "must be norm or value"),
    "gradient_clip_val": FROM_ZERO,
    "limit_train_batches": BATCHES,
    "limit_val_batches": BATCHES,
    "log_every_n_steps": FROM_ZERO,
    "max_epochs": FROM_MINUS_ONE,
    "max_steps": FROM_MINUS_ONE,
    "max_time": (
        lambda value: not isinstance(value, str) or DURATION.fullmatch(value) is not None,
        "must be days:hours:minutes:seconds; ten minutes are 00:00:10:00",
    ),
    "min_epochs": FROM_ZERO,
    "min_steps": FROM_ZERO,
    "num_nodes": FROM_ONE,
    "num_sanity_val_steps": (lambda value: value >= -1, "must be 0 or more, or -1 for the whole validation"),
    "overfit_batches": BATCHES,
    "profiler": (lambda value: value in PROFILERS, f"must be one of {', '.join(PROFILERS)}"),
    "reload_dataloaders_every_n_epochs": FROM_ZERO,
    "val_check_interval": (
        lambda value: not isinstance(value, int | float) or (value > 0 and (isinstance(value, int) or value <= 1)),
        "must be a whole number of batches, at least 1, or a share of an epoch above 0.0 and up to 1.0",
    ),
}
"""What a value must be beside its type."""


def check_trainer_arguments(arguments: dict[str, Any]) -> None:
    """Refuse what `lightning.Trainer` would not take, and what can have no effect.

    Raises:
        UserError: an unknown argument, with the nearest known one; a value of another type than the Trainer's own
            annotation, or out of range; or an argument that the run folder's contract rests on.
    """
    known = trainer_parameters()
    for name, value in arguments.items():
        key = f"trainer.{name}"
        if name not in known:
            close = difflib.get_close_matches(name, known, 1)
            hint = f"; did you mean trainer.{close[0]}?" if close else ""
            raise UserError(f"{key}: lightning.Trainer has no argument {name}{hint}", key)
        if name in REFUSED:
            raise UserError(f"{key}: cannot be set; {REFUSED[name]}", key)
        if name == "enable_checkpointing" and value is False:
            raise UserError(f"{key}=false: the best and the last checkpoint are always kept", key)
        if name == "logger" and not isinstance(value, bool):
            raise UserError(f"{key}={value}: true writes TensorBoard events, false writes none", key)
        if name == "precision" and str(value).startswith("16"):
            raise UserError(f"{key}={value}: float16 is not supported; bf16-mixed has float32's range", key)
        if name == "strategy" and any(word in str(value) for word in ("spawn", "fork", "notebook")):
            raise UserError(f"{key}={value}: its processes do not give back what they recorded; use ddp", key)
        if not fits(value, known[name]):
            wanted = " or ".join(PRECISIONS) if name == "precision" else _spelled(known[name])
            raise UserError(f"{key}={_shown(value)}: lightning.Trainer wants {wanted}", key)
        if value is not None and name in VALUES and not VALUES[name][0](value):
            raise UserError(f"{key}={value}: {VALUES[name][1]}", key)
    for what in ("epochs", "steps"):
        least, most = arguments.get(f"min_{what}"), arguments.get(f"max_{what}")
        if least is not None and most is not None and 0 <= most < least:
            raise UserError(
                f"trainer.min_{what}={least}: must be at most trainer.max_{what} = {most}", f"trainer.min_{what}"
            )


def fits(value: Any, hint: Any) -> bool:
    """Whether a plain value (number, text, list, mapping, null) fits a type annotation."""
    origin, arguments = get_origin(hint), get_args(hint)
    if hint is Any:
        return True
    if origin in (Union, types.UnionType):
        return any(fits(value, choice) for choice in arguments)
    if origin is Literal:
        return value in arguments and not (isinstance(value, bool) and True not in arguments and False not in arguments)
    if origin in (list, tuple) and isinstance(value, list):
        return all(fits(item, arguments[0]) for item in value) if arguments else True
    if origin is dict:
        return isinstance(value, dict)
    if hint is type(None):
        return value is None
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, hint) if hint in (str, bool) else False


def _spelled(hint: Any) -> str:
    choices = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)
    words = []
    for choice in choices:
        if get_origin(choice) is Literal:
            words += [repr(value) for value in get_args(choice)]
        elif choice is type(None):
            words.append("null")
        elif choice in (int, float, str, bool):
            words.append({int: "a whole number", float: "a number", str: "text", bool: "true or false"}[choice])
        elif get_origin(choice) is list:
            words.append("a list")
        elif get_origin(choice) is dict:
            words.append("a mapping")
    return " or ".join(dict.fromkeys(words)) or "an object that cannot be written in a configuration"


def _shown(value: Any) -> str:
    return "null" if value is None else str(value)

"""Check of `trainer.*`, the arguments of `lightning.Trainer`, before Lightning is imported."""

import ast
import difflib
import functools
import importlib.util
import re
import types
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

from qa_lm.config.enums import FSDP2
from qa_lm.errors import UserError

TRAINER = "lightning.pytorch.trainer.trainer"
REFUSED = {
    "callbacks": "further callbacks are callbacks.NAME._target_=package.Class",
    "logger": "loggers are loggers=[tensorboard,csv]; none are loggers=none",
    "default_root_dir": "the run folder is set by hydra.run.dir=FOLDER",
    "plugins": "qa_lm sets the plugins",
    "inference_mode": "qa_lm sets it",
    "use_distributed_sampler": "qa_lm assigns the rows to the processes itself",
    "barebones": "the run folder needs checkpoints and logs; the progress bar is set by trainer.enable_progress_bar",
    "limit_test_batches": "evaluation.max_pairs limits the pairs that are asked at the end",
    "limit_predict_batches": "evaluation.max_pairs limits the pairs that are asked at the end",
    "model_registry": "the model is written to the run folder",
}
"""Arguments that are not supported, each with what to use instead."""
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
"""Requirements on a value in addition to its type: a check, and its message."""


def shards_model(arguments: dict[str, Any]) -> bool:
    """Whether the processes of a run share one model, each with a part of every parameter."""
    return arguments.get("strategy") == FSDP2


def check_trainer_arguments(arguments: dict[str, Any]) -> None:
    """Refuse arguments that `lightning.Trainer` does not take, and those that are not supported.

    Raises:
        UserError: an argument is unknown, a value has another type than the Trainer's own annotation or is out of
            range, or the argument would change what the run folder contains.
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
        if name == "precision" and str(value).startswith("16"):
            raise UserError(f"{key}={value}: float16 is not supported; bf16-mixed has float32's range", key)
        if name == "strategy" and any(word in str(value) for word in ("spawn", "fork", "notebook")):
            raise UserError(f"{key}={value}: its processes do not give back what they recorded; use ddp", key)
        if name == "strategy" and str(value).startswith("fsdp") and value != FSDP2:
            raise UserError(
                f"{key}={value}: is not supported; trainer.strategy={FSDP2} shards the model, on CPUs too", key
            )
        if not fits(value, known[name]):
            wanted = " or ".join(PRECISIONS) if name == "precision" else _spelled(known[name])
            raise UserError(f"{key}={_shown(value)}: must be {wanted}", key)
        if value is not None and name in VALUES and not VALUES[name][0](value):
            raise UserError(f"{key}={value}: {VALUES[name][1]}", key)
    for unit in ("epochs", "steps"):
        minimum, maximum = arguments.get(f"min_{unit}"), arguments.get(f"max_{unit}")
        if minimum is not None and maximum is not None and 0 <= maximum < minimum:
            raise UserError(
                f"trainer.min_{unit}={minimum}: must be at most trainer.max_{unit} = {maximum}", f"trainer.min_{unit}"
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
    names = []
    for choice in choices:
        if get_origin(choice) is Literal:
            names += [repr(value) for value in get_args(choice)]
        elif choice is type(None):
            names.append("null")
        elif choice in (int, float, str, bool):
            names.append({int: "an integer", float: "a number", str: "text", bool: "true or false"}[choice])
        elif get_origin(choice) is list:
            names.append("a list")
        elif get_origin(choice) is dict:
            names.append("a mapping")
    return " or ".join(dict.fromkeys(names)) or "an object that cannot be written in a configuration"


def _shown(value: Any) -> str:
    return "null" if value is None else str(value)


NAMES = {name: getattr(typing, name) for name in ("Any", "Literal", "Optional", "Union")} | {
    each.__name__: each for each in (bool, dict, float, int, list, str, tuple)
}


class NotPlain:
    """Placeholder for types whose values cannot be written in a configuration."""

    def __class_getitem__(cls, item: object) -> type["NotPlain"]:
        return cls


@functools.cache
def trainer_parameters() -> dict[str, Any]:
    """Return the name and type of each argument of the installed `lightning.Trainer`; `NotPlain` for classes."""
    (trainer,) = [node for node in _parsed(TRAINER).body if isinstance(node, ast.ClassDef) and node.name == "Trainer"]
    (init,) = [node for node in trainer.body if isinstance(node, ast.FunctionDef) and node.name == "__init__"]
    arguments = [*init.args.args[1:], *init.args.kwonlyargs]
    return {each.arg: _type(each.annotation, TRAINER) if each.annotation else Any for each in arguments}


def _type(annotation: ast.expr, module: str) -> Any:
    names = {node.id: _named(node.id, module) for node in ast.walk(annotation) if isinstance(node, ast.Name)}
    return eval(compile(ast.Expression(annotation), module, "eval"), {"__builtins__": {}}, names)


def _named(name: str, module: str) -> Any:
    """Resolve a name in an annotation: a plain type, an alias that a module of Lightning defines, or a class."""
    if name in NAMES:
        return NAMES[name]
    for node in _parsed(module).body:
        if isinstance(node, ast.Assign) and any(isinstance(to, ast.Name) and to.id == name for to in node.targets):
            return _type(node.value, module)
        if isinstance(node, ast.ImportFrom) and any(alias.name == name for alias in node.names):
            source = node.module or ""
            return _named(name, source) if source.startswith("lightning.") and name.startswith("_") else NotPlain
    return NotPlain


@functools.cache
def _parsed(module: str) -> ast.Module:
    package = importlib.util.find_spec("lightning")
    assert package is not None
    assert package.origin is not None
    path = Path(package.origin).parent.joinpath(*module.split(".")[1:])
    file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    return ast.parse(file.read_text(encoding="utf-8"))

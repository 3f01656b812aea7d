"""`trainer.*`: any argument of `lightning.Trainer`, checked against its signature before any work."""

import difflib
import inspect
import types
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from lightning.pytorch import Trainer

from qa_lm.errors import UserError

# What a run folder rests on is not open to change; each with where to turn instead.
OURS = {
    "callbacks": "qa_lm sets the callbacks: see early_stopping and monitor",
    "default_root_dir": "the run folder is set by hydra.run.dir=FOLDER",
    "enable_checkpointing": "the best and the last checkpoint are always kept",
    "plugins": "qa_lm sets the plugins",
    "inference_mode": "qa_lm sets it",
    "use_distributed_sampler": "qa_lm deals the rows out to the processes itself",
}


def check_trainer_arguments(arguments: dict[str, Any]) -> None:
    """Refuse what `lightning.Trainer` would not take.

    Raises:
        UserError: an unknown argument, with the nearest known one; a value of another type than the Trainer's own
            annotation; or an argument that the run folder's contract rests on.
    """
    known = {name: hint for name, hint in get_type_hints(Trainer.__init__).items() if name not in ("self", "return")}
    assert set(known) <= set(inspect.signature(Trainer.__init__).parameters)
    for name, value in arguments.items():
        key = f"trainer.{name}"
        if name in OURS:
            raise UserError(f"{key}: cannot be set; {OURS[name]}", key)
        if name not in known:
            close = difflib.get_close_matches(name, known, 1)
            hint = f"; did you mean trainer.{close[0]}?" if close else ""
            raise UserError(f"{key}: lightning.Trainer has no argument {name}{hint}", key)
        if name == "logger" and not isinstance(value, bool):
            raise UserError(f"{key}={value}: true writes TensorBoard events, false writes none", key)
        if name == "precision" and str(value).startswith("16"):
            raise UserError(f"{key}={value}: float16 is not supported; bf16-mixed has float32's range", key)
        if name == "strategy" and any(word in str(value) for word in ("spawn", "fork", "notebook")):
            raise UserError(f"{key}={value}: its processes do not give back what they recorded; use ddp", key)
        if not fits(value, known[name]):
            raise UserError(f"{key}={value}: lightning.Trainer wants {_spelled(known[name])}", key)


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

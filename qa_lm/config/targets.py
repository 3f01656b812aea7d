"""Classes that settings name by `_target_`: import, check of the arguments, instantiation.

- A class comes from one of `PACKAGES`, or from a package that the user trusts by `trust=PACKAGE` on the command line.
- It must be a subclass of the expected base (an optimizer, a callback, ...), so settings cannot name a function.
- Data and runs cannot name classes: `qa_lm.config.resume` compares the settings of a run with those of the user.
"""

import importlib
import inspect
import sys
import traceback
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qa_lm.errors import UserError, did_you_mean, first_line

if TYPE_CHECKING:
    from qa_lm.config.schema import TrainConfig

TARGET = "_target_"
TRUST_HELP = "a Python package with code of your own: a model class, a format of files, a split; it is imported"
PACKAGES = ("lightning", "qa_lm", "torch", "transformers")
"""Packages whose classes settings may always name."""


def trusted_modules(trust: Any) -> list[str]:
    """Return the modules of `trust=NAME` or `trust=[NAME,NAME]`.

    Raises:
        UserError: the value is not a name or a list of names.
    """
    names = [] if trust is None else trust if isinstance(trust, list) else [trust]
    for name in names:
        if not isinstance(name, str) or not all(part.isidentifier() for part in name.split(".")):
            raise UserError(f"trust={name}: give the name of a Python package, such as trust=my_package", "trust")
    return names


def import_trusted(trust: Any) -> None:
    """Import what the user trusts: a module in the current folder or an installed one. At import it can register model
    classes with transformers, readers of file formats and splits with qa_lm.

    Raises:
        UserError: it cannot be imported.
    """
    names = trusted_modules(trust)
    if names and str(Path.cwd()) not in sys.path:
        sys.path.append(str(Path.cwd()))  # as `python -m` does; a script's own folder stands there instead
    for name in names:
        try:
            importlib.import_module(name)
        except Exception as error:  # the user's own code can raise anything
            raise UserError(f"trust={name}: cannot be imported: {_reason(error)}", "trust") from error


def failure_in_trusted(error: BaseException, trust: Any) -> str | None:
    """Describe an error that passed through trusted code, with the place in that code; None for any other error."""
    roots = {name.partition(".")[0] for name in trusted_modules(trust)}
    for frame, line in reversed(list(traceback.walk_tb(error.__traceback__))):
        if str(frame.f_globals.get("__name__")).partition(".")[0] in roots:
            code = frame.f_code
            reason = f"{type(error).__name__}: {first_line(error)}"
            return f"{code.co_filename}:{line}: {code.co_qualname} failed with {reason}"
    return None


def named_targets(config: "TrainConfig") -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the key and the node of each `_target_`. A node contains all arguments of the class."""
    for key, settings in (("model", config.model), ("optimizer", config.optimizer)):
        if settings._target_ is not None:
            yield key, {TARGET: settings._target_, **settings.extra}
    for group, nodes in (("loggers", config.loggers), ("callbacks", config.callbacks)):
        for name, node in nodes.items():
            yield f"{group}.{name}", node


def check_targets(config: "TrainConfig") -> None:
    """Refuse nodes without a `_target_`, packages that are not trusted, and targets within targets.

    Nothing is imported, so this is quick; `class_of` checks the rest.

    Raises:
        UserError: the message begins with the key.
    """
    trusted = trusted_modules(config.trust)
    for key, node in named_targets(config):
        for name in node if isinstance(node, Mapping) else ():
            if str(name).startswith("_") and name != TARGET:
                raise UserError(f"{key}.{name}: is not read here; did you mean {TARGET}?", f"{key}.{name}")
        if not isinstance(node, Mapping) or not isinstance(node.get(TARGET), str):
            raise UserError(f"{key}: has no {TARGET}; name its class: {key}.{TARGET}=package.Class", key)
        _check_package(node[TARGET], f"{key}.{TARGET}", trusted)
        for name, value in node.items():
            if name != TARGET and _holds_target(value):
                raise UserError(f"{key}.{name}: {TARGET} is not read here; give plain values", f"{key}.{name}")


def class_of(path: str, base: type, key: str, trust: Any) -> type:
    """Import the class that a `_target_` names.

    Args:
        path: module and name, such as `torch.optim.SGD`.
        base: what it must be a subclass of.
        key: the key of the node, for messages.
        trust: the setting `trust`.

    Raises:
        UserError: the class does not exist, is not a subclass of `base`, or its package is not trusted.
    """
    key = f"{key}.{TARGET}"
    _check_package(path, key, trusted_modules(trust))
    module_name, _, name = path.rpartition(".")
    try:
        module = importlib.import_module(module_name)
        found = getattr(module, name, None)
    except Exception as error:  # the user's own code can raise anything
        raise UserError(f"{key}={path}: cannot import {module_name}: {_reason(error)}", key) from error
    if found is None:
        names = [each for each, value in vars(module).items() if isinstance(value, type) and issubclass(value, base)]
        raise UserError(f"{key}={path}: {module_name} has no {name}{did_you_mean(name, names)}", key)
    if not isinstance(found, type) or not issubclass(found, base):
        raise UserError(f"{key}={path}: is not a subclass of {base.__module__}.{base.__qualname__}", key)
    return found


def instantiate(node: Mapping[str, Any], base: type, key: str, trust: Any, **defaults: Any) -> Any:
    """Create the object that a node describes.

    Args:
        node: `_target_` and arguments of the class.
        base: what the class must be a subclass of.
        key: the key of the node, for messages.
        trust: the setting `trust`.
        defaults: arguments to add if the class takes them and the node does not set them.

    Raises:
        UserError: the class does not exist or does not take these arguments; the message begins with the key.
    """
    found = class_of(node[TARGET], base, key, trust)
    given = {str(name): value for name, value in node.items() if name != TARGET}
    known = argument_names(found)
    arguments = {name: value for name, value in defaults.items() if name in known} | given
    check_arguments(found, arguments, key)
    try:
        return found(**arguments)
    except Exception as error:  # a constructor can raise anything
        raise UserError(f"{key}: {node[TARGET]} cannot be built: {_reason(error)}", key) from error


def check_arguments(found: type, given: Iterable[str], key: str, positional: int = 0) -> None:
    """Refuse unknown and missing arguments of a class. If it takes any name (`**kwargs`), only names that look like a
    typing mistake are refused.

    Args:
        found: the class.
        given: names of arguments.
        key: the key of the node, for messages.
        positional: number of further arguments that are passed by position.

    Raises:
        UserError: an argument is unknown, with the closest known name, or missing.
    """
    parameters = list(inspect.signature(found).parameters.values())
    names = [each.name for each in parameters[positional:] if each.kind not in (each.VAR_KEYWORD, each.VAR_POSITIONAL)]
    open_ended = any(each.kind is each.VAR_KEYWORD for each in parameters)
    for name in given:
        hint = did_you_mean(name, names, 0.85 if open_ended else 0.6)
        if name not in names and (hint or not open_ended):
            raise UserError(f"{key}.{name}: {found.__name__} has no argument {name}{hint}", f"{key}.{name}")
    for each in parameters[positional:]:
        if each.name in names and each.default is each.empty and each.name not in given:
            raise UserError(f"{key}.{each.name}: {found.__name__} needs it; give it a value", f"{key}.{each.name}")


def argument_names(found: type) -> set[str]:
    """Return the names of the arguments of a class."""
    return set(inspect.signature(found).parameters)


def _check_package(path: str, key: str, trusted: list[str]) -> None:
    parts = path.split(".")
    if len(parts) < 2 or not all(part.isidentifier() for part in parts):
        raise UserError(f"{key}={path}: must be a module and a class, such as torch.optim.SGD", key)
    if parts[0] not in (*PACKAGES, *(name.split(".")[0] for name in trusted)):
        raise UserError(f"{key}={path}: code of {parts[0]} is not run unless you trust it: add trust={parts[0]}", key)


def _holds_target(value: Any) -> bool:
    if isinstance(value, Mapping):
        return TARGET in value or any(map(_holds_target, value.values()))
    return isinstance(value, list) and any(map(_holds_target, value))


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {first_line(error)}"

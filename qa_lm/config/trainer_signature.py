"""The arguments of `lightning.Trainer` and their types, read from its source: importing it takes seconds."""

import ast
import functools
import importlib.util
import typing
from pathlib import Path
from typing import Any

TRAINER = "lightning.pytorch.trainer.trainer"
NAMES = {name: getattr(typing, name) for name in ("Any", "Literal", "Optional", "Union")} | {
    each.__name__: each for each in (bool, dict, float, int, list, str, tuple)
}


class NotPlain:
    """Stands for every type whose values cannot be written in a configuration."""

    def __class_getitem__(cls, item: object) -> type["NotPlain"]:
        return cls


@functools.cache
def trainer_parameters() -> dict[str, Any]:
    """Name and type of each argument of the installed `lightning.Trainer`; `NotPlain` stands for classes."""
    (trainer,) = [node for node in _parsed(TRAINER).body if isinstance(node, ast.ClassDef) and node.name == "Trainer"]
    (init,) = [node for node in trainer.body if isinstance(node, ast.FunctionDef) and node.name == "__init__"]
    arguments = [*init.args.args[1:], *init.args.kwonlyargs]
    return {each.arg: _type(each.annotation, TRAINER) if each.annotation else Any for each in arguments}


def _type(annotation: ast.expr, module: str) -> Any:
    names = {node.id: _named(node.id, module) for node in ast.walk(annotation) if isinstance(node, ast.Name)}
    return eval(compile(ast.Expression(annotation), module, "eval"), {"__builtins__": {}}, names)


def _named(name: str, module: str) -> Any:
    """What a name in an annotation stands for: a plain type, an alias that some module of Lightning's defines, or a
    class."""
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

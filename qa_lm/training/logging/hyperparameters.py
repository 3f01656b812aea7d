"""The settings of a run as one flat row: all of them, and the few that TensorBoard's HParams page shows."""

import json
from dataclasses import fields, is_dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from qa_lm.config.schema import TrainConfig
from qa_lm.run.run_folder import ENVIRONMENT, JOB

TRAINER_COLUMNS = ("max_epochs", "max_steps", "precision", "accumulate_grad_batches", "gradient_clip_val", "devices")
DATA = ("data.path", "data.hub")
"""Settings that name the pairs; the first that is set is shown, as `data`."""
COMPARED = (
    *("data.batch_size", "model.hidden_size", "model.layers", "optimizer.kind", "optimizer.lr", "seed"),
    "trainer.max_epochs",
)
"""Settings shown for every run, in addition to those set on the command line."""


def compared_hyperparameters(config: TrainConfig, folder: Path) -> dict[str, str | int | float | bool]:
    """The settings that the HParams page shows: in a sweep those that were swept, otherwise a few and what was given on
    the command line; always the run's name and tags. Settings that are not set are left out.

    Args:
        config: all settings.
        folder: the run folder; its job.json names what was swept, its environment.json what was given.
    """
    settings = flat_hyperparameters(config)
    settings |= {f"trainer.{name}": _plain(value) for name, value in config.trainer.items()}
    settings["data"] = next((Path(str(settings[key])).name for key in DATA if settings[key]), "")
    given = _by_key(_read(folder / JOB, "overrides"))
    named = {key: settings[key] for key in ("name", "tags") if settings[key]}
    if swept := [key for key in _read(folder / JOB, "swept") if key in settings or key in given]:
        return {key: settings[key] if key in settings else given[key] for key in swept} | named
    typed = [key for key in _by_key(_read(folder / ENVIRONMENT, "command")) if key in settings and key not in DATA]
    return {key: settings[key] for key in ("data", *COMPARED, *typed) if settings[key] != ""} | named


def flat_hyperparameters(config: TrainConfig) -> dict[str, str | int | float | bool]:
    """Dotted names to plain values; the same names for every run."""
    flat = _flattened(config, "")
    flat |= {f"trainer.{name}": _plain(config.trainer.get(name)) for name in TRAINER_COLUMNS}
    return flat | {"tags": ", ".join(config.tags)}


def _read(path: Path, name: str) -> list[str]:
    """A list of texts in a JSON file; empty where there is none."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))[name]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return []
    return [each for each in found if isinstance(each, str)] if isinstance(found, list) else []


def _by_key(overrides: list[str]) -> dict[str, str]:
    """Key to value of what is given as "optimizer.lr=0.003"."""
    return {key.lstrip("+"): value for key, equals, value in (each.partition("=") for each in overrides) if equals}


def _flattened(node: Any, prefix: str) -> dict[str, str | int | float | bool]:
    flat: dict[str, str | int | float | bool] = {}
    for field in fields(node):
        value = getattr(node, field.name)
        if is_dataclass(value):
            flat |= _flattened(value, f"{prefix}{field.name}.")
        elif field.name not in ("trainer", "loggers"):  # loggers do not change the run
            flat[f"{prefix}{field.name}"] = _plain(value)
    return flat


def _plain(value: Any) -> str | int | float | bool:
    if isinstance(value, Enum):
        return str(value.value)
    return value if isinstance(value, str | int | float | bool) else "" if value is None else str(value)

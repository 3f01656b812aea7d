"""The settings of a run as one flat row, for TensorBoard's HParams page."""

from dataclasses import fields, is_dataclass
from enum import Enum
from typing import Any

from qa_lm.config import TrainConfig

# The page takes its columns from the first run it finds, so every run has the same ones, set or not.
TRAINER_COLUMNS = ("max_epochs", "max_steps", "precision", "accumulate_grad_batches", "gradient_clip_val", "devices")


def flat_hyperparameters(config: TrainConfig) -> dict[str, str | int | float | bool]:
    """Dotted names to plain values; the same names for every run."""
    flat = _flattened(config, "")
    flat |= {f"trainer.{name}": _plain(config.trainer.get(name)) for name in TRAINER_COLUMNS}
    return flat


def _flattened(node: Any, prefix: str) -> dict[str, str | int | float | bool]:
    flat: dict[str, str | int | float | bool] = {}
    for field in fields(node):
        value = getattr(node, field.name)
        if field.name == "logger":
            continue  # says who is told of the run, not what it is
        if is_dataclass(value):
            flat |= _flattened(value, f"{prefix}{field.name}.")
        elif field.name != "trainer":
            flat[f"{prefix}{field.name}"] = _plain(value)
    return flat


def _plain(value: Any) -> str | int | float | bool:
    if isinstance(value, Enum):
        return str(value.value)
    return value if isinstance(value, str | int | float | bool) else "" if value is None else str(value)

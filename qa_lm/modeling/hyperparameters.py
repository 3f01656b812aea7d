"""Convert the hyperparameters of a `CausalLMModule` to plain values and back, so that a checkpoint is self-contained.

Plain values are numbers, strings, None, lists and dicts. They can name only a fixed choice of objects: an architecture
of transformers with its arguments, AdamW or Muon, a schedule. So an untrusted checkpoint cannot run code.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

from torch.optim import Optimizer
from transformers import PreTrainedModel

from qa_lm.errors import UserError
from qa_lm.modeling.causal_lm import causal_lm_from_config, plain_config
from qa_lm.modeling.optimizers import OptimizerSettings
from qa_lm.modeling.schedules import Schedule

PlainValues = Mapping[str, Any]
OptimizerFactory = Callable[[PreTrainedModel], Optimizer]


def resolve_model(model: PreTrainedModel | PlainValues) -> PreTrainedModel:
    """Return the model; if only its configuration is given, build it with new weights."""
    return causal_lm_from_config(model) if isinstance(model, Mapping) else model


def resolve_optimizer(optimizer: OptimizerFactory | PlainValues | None) -> OptimizerFactory:
    """Return the function that builds the optimizer of a model."""
    if isinstance(optimizer, Mapping):
        return OptimizerSettings(**optimizer)
    return optimizer or _no_optimizer


def check_optimizer(optimizer: object) -> Optimizer:
    """Check that the user's function returned an optimizer, and return it.

    Raises:
        UserError: the object is not an optimizer.
    """
    if not isinstance(optimizer, Optimizer):
        raise UserError(f"optimizer: must return a torch.optim.Optimizer, not {type(optimizer).__name__}")
    return optimizer


def resolve_schedule(schedule: Callable[[int], float] | PlainValues | None) -> Callable[[int], float]:
    """Return the function from step to learning rate factor; constant 1 without a schedule."""
    if isinstance(schedule, Mapping):
        return Schedule(**schedule)
    return schedule or Schedule("constant", 0)


def plain_hyperparameters(
    model: PreTrainedModel,
    optimizer: OptimizerFactory,
    schedule: Callable[[int], float],
    mean_per_pair: bool,
    answer_bytes: int | None,
) -> dict[str, Any]:
    """Arguments that rebuild a module; an optimizer or schedule that is a function is replaced by None."""
    return {
        "model": plain_config(model),
        "optimizer": plain_settings(optimizer),
        "schedule": plain_settings(schedule),
        "mean_per_pair": mean_per_pair,
        "answer_bytes": answer_bytes,
    }


def plain_settings(settings: object) -> dict[str, Any] | None:
    """The fields of an optimizer's or a schedule's settings as plain values; None for a function."""
    if not isinstance(settings, OptimizerSettings | Schedule):
        return None
    plain: dict[str, Any] = json.loads(json.dumps(asdict(settings)))  # tuples become lists
    return plain


def _no_optimizer(model: PreTrainedModel) -> Optimizer:
    raise UserError("CausalLMModule has no optimizer; to train it, build it with optimizer={'lr': 1e-3}")

"""The hyperparameters of a `CausalLMModule` as plain values, and back: a checkpoint that holds them needs nothing else.

Plain values are numbers, texts, None, lists and dicts. What they name is built from a fixed choice: an architecture of
transformers with its own arguments, AdamW or Muon, a schedule. So values from a stranger's checkpoint run no code.
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

Plain = Mapping[str, Any]
MakeOptimizer = Callable[[PreTrainedModel], Optimizer]


def built_model(model: PreTrainedModel | Plain) -> PreTrainedModel:
    """The model, built with fresh weights if only its configuration is given."""
    return causal_lm_from_config(model) if isinstance(model, Mapping) else model


def built_optimizer(optimizer: MakeOptimizer | Plain | None) -> MakeOptimizer:
    """What makes the optimizer."""
    if isinstance(optimizer, Mapping):
        return OptimizerSettings(**optimizer)
    return optimizer or _no_optimizer


def checked_optimizer(optimizer: object) -> Optimizer:
    """What a function of the user's returned, if it is an optimizer.

    Raises:
        UserError: it is something else.
    """
    if not isinstance(optimizer, Optimizer):
        raise UserError(f"optimizer: must return a torch.optim.Optimizer, not {type(optimizer).__name__}")
    return optimizer


def built_schedule(schedule: Callable[[int], float] | Plain | None) -> Callable[[int], float]:
    """The factor of the learning rate by step; 1 if no schedule is given."""
    if isinstance(schedule, Mapping):
        return Schedule(**schedule)
    return schedule or Schedule("constant", 0)


def plain_hyperparameters(
    model: PreTrainedModel,
    optimizer: MakeOptimizer,
    schedule: Callable[[int], float],
    mean_per_pair: bool,
    answer_bytes: int | None,
) -> dict[str, Any]:
    """Arguments that build such a module again; None in place of an optimizer or schedule that is a function."""
    return {
        "model": plain_config(model),
        "optimizer": _plain(optimizer),
        "schedule": _plain(schedule),
        "mean_per_pair": mean_per_pair,
        "answer_bytes": answer_bytes,
    }


def _plain(settings: object) -> dict[str, Any] | None:
    if not isinstance(settings, OptimizerSettings | Schedule):
        return None
    plain: dict[str, Any] = json.loads(json.dumps(asdict(settings)))  # tuples become lists
    return plain


def _no_optimizer(model: PreTrainedModel) -> Optimizer:
    raise UserError("CausalLMModule has no optimizer; to train it, build it with optimizer={'lr': 1e-3}")

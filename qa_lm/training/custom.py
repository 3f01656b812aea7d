"""Parts of a run that are the user's own: given from Python, or named by `_target_` in the settings."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import Logger
from torch.optim import Optimizer
from transformers import PreTrainedModel

from qa_lm.config.schema import OptimizerConfig, TrainConfig
from qa_lm.config.targets import argument_names, check_arguments, class_of, import_trusted, instantiate
from qa_lm.config.validate import MONITORS
from qa_lm.data.batches.datamodule import PairsDataModule
from qa_lm.errors import UserError
from qa_lm.modeling.custom_model import register_models
from qa_lm.modeling.hyperparameters import OptimizerFactory
from qa_lm.modeling.module import Loss
from qa_lm.modeling.optimizers import OptimizerOfClass

ModelSource = type[PreTrainedModel] | Callable[..., PreTrainedModel]
"""A model class, or a function of `vocab_size`, `context` and `eos_id` that returns a model."""


@dataclass(frozen=True)
class CustomParts:
    """Parts that replace those of qa_lm (None keeps them), and additional callbacks and loggers."""

    model: ModelSource | None = None
    optimizer: OptimizerFactory | None = None
    """From the model to its optimizer; the schedule of the settings scales its learning rates."""
    loss: Loss | None = None
    """See `CausalLMModule`."""
    datamodule: Callable[..., PairsDataModule] | None = None
    """Called with the arguments of `PairsDataModule`."""
    callbacks: Sequence[Callback] = ()
    loggers: Sequence[Logger] = ()


def with_targets(custom: CustomParts, config: TrainConfig) -> CustomParts:
    """The parts, with those that the settings name by `_target_`. What is given from Python comes first.

    Raises:
        UserError: a class is missing or of the wrong kind, an argument is unknown, or what `monitor` names is neither
            logged here nor can be by such a part.
    """
    import_trusted(config.trust)
    register_models()
    model, optimizer = config.model._target_, config.optimizer
    found = replace(
        custom,
        model=custom.model or (None if model is None else class_of(model, PreTrainedModel, "model", config.trust)),
        optimizer=custom.optimizer or (None if optimizer._target_ is None else _optimizer(optimizer, config.trust)),
        callbacks=[
            *custom.callbacks,
            *(
                instantiate(node, Callback, f"callbacks.{name}", config.trust)
                for name, node in config.callbacks.items()
            ),
        ],
    )
    if config.monitor not in MONITORS and not (found.callbacks or found.model or found.datamodule):
        raise UserError(
            f"monitor={config.monitor}: must be one of {', '.join(MONITORS)}, or what a callback of yours logs",
            "monitor",
        )
    return found


def _optimizer(settings: OptimizerConfig, trust: Any) -> OptimizerOfClass:
    assert settings._target_
    found = class_of(settings._target_, Optimizer, "optimizer", trust)
    own = {name: getattr(settings, name) for name in ("betas", "eps", "weight_decay", "momentum")}
    arguments = {name: value for name, value in own.items() if value is not None} | settings.extra
    if "lr" in argument_names(found):
        arguments["lr"] = settings.lr
    check_arguments(found, arguments, "optimizer", positional=1)
    return OptimizerOfClass(found, arguments)

"""Custom model classes: register them with transformers' Auto classes, and check them before training.

A model class must be a `PreTrainedModel` with its own config class. Its `base_model` is called with `input_ids`,
`position_ids` (both (rows, time)) and `use_cache=False`, and returns an object with `last_hidden_state`
(rows, time, hidden_size); `get_output_embeddings()` returns the linear layer that maps hidden states to logits.
"""

import torch
from transformers import CONFIG_MAPPING, AutoConfig, AutoModelForCausalLM, PretrainedConfig, PreTrainedModel
from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

from qa_lm.errors import UserError, first_line
from qa_lm.modeling.causal_lm import head, hidden_states, packs_exactly


def register_model(model_class: type[PreTrainedModel]) -> str:
    """Register a class with transformers' Auto classes; returns its model type, the name in config.json.

    Raises:
        UserError: the class has no config class of its own, or its model type is already used by transformers.
    """
    config = model_class.config_class
    name = config.model_type if isinstance(config, type) and issubclass(config, PretrainedConfig) else ""
    if _is_from_transformers(model_class) and name:
        return str(name)
    if not name or config is None or _is_from_transformers(config):
        raise UserError(
            f"model: {model_class.__name__} needs its own config class: set config_class to a subclass of "
            "PretrainedConfig with a model_type"
        )
    if name in CONFIG_MAPPING_NAMES:
        raise UserError(f"model: {config.__name__}.model_type={name} is a model of transformers; choose another name")
    AutoConfig.register(name, config, exist_ok=True)
    AutoModelForCausalLM.register(config, model_class, exist_ok=True)
    return str(name)


def register_models() -> None:
    """Register all custom model classes with a head that have been imported so far."""
    for model_class in _subclasses(PreTrainedModel):
        config = model_class.config_class
        if config is None or _is_from_transformers(config) or config.model_type in CONFIG_MAPPING:
            continue
        if model_class.get_output_embeddings is not PreTrainedModel.get_output_embeddings:  # it has a head
            register_model(model_class)


def check_custom_model(model: object, packing: bool) -> PreTrainedModel:
    """Check that a model can be trained, and return it.

    Args:
        model: the object that the user's code returned.
        packing: whether several pairs share a row; the model must then keep them separate.

    Raises:
        UserError: it is not a `PreTrainedModel`, cannot be called as this module describes, or mixes pairs in a row.
    """
    if not isinstance(model, PreTrainedModel):
        raise UserError(f"model: must be a transformers PreTrainedModel, not {type(model).__name__}")
    register_model(type(model))
    ids = torch.arange(4, device=model.device)[None] % model.config.vocab_size
    try:
        with torch.no_grad():
            logits = head(model)(hidden_states(model, ids, ids))
    except Exception as error:  # the user's own code can raise anything
        raise UserError(
            f"model: {type(model).__name__} cannot be called: {type(error).__name__}: {first_line(error)}; see "
            "docs/extending.md"
        ) from error
    if logits.shape[:2] != ids.shape:
        raise UserError(f"model: {type(model).__name__} returns logits of shape {tuple(logits.shape)} for (1, 4) ids")
    exact = packs_exactly(model)
    model.train()
    if packing and not exact:
        raise UserError(
            f"model: {type(model).__name__} mixes pairs that share a row: where position_ids restart at 0, a new text "
            "must start; otherwise set data.packing=false"
        )
    return model


def _is_from_transformers(value: object) -> bool:
    return isinstance(value, type) and value.__module__.startswith("transformers.")


def _subclasses(base: type) -> set[type[PreTrainedModel]]:
    direct: set[type[PreTrainedModel]] = set(base.__subclasses__())
    return direct.union(*map(_subclasses, direct))

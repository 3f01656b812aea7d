"""Model classes of the user: made known to transformers' Auto classes, and tried before they are trained.

A model class must be a `PreTrainedModel` with a config class of its own. Its `base_model` is called with `input_ids`,
`position_ids` (both (rows, time)) and `use_cache=False`, and returns an object with `last_hidden_state`
(rows, time, hidden_size); `get_output_embeddings()` returns the linear layer that turns hidden states into logits.
"""

import torch
from transformers import CONFIG_MAPPING, AutoConfig, AutoModelForCausalLM, PretrainedConfig, PreTrainedModel
from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

from qa_lm.errors import UserError, first_line
from qa_lm.modeling.causal_lm import head, hidden_states, packs_exactly


def register_model(found: type[PreTrainedModel]) -> str:
    """Make a class known to transformers' Auto classes; returns its model type, by which config.json names it.

    Raises:
        UserError: it has no config class of its own, or one whose model type is taken.
    """
    config = found.config_class
    name = config.model_type if isinstance(config, type) and issubclass(config, PretrainedConfig) else ""
    if _is_of_transformers(found) and name:
        return str(name)
    if not name or config is None or _is_of_transformers(config):
        raise UserError(
            f"model: {found.__name__} needs a config class of its own: a subclass of PretrainedConfig, with a "
            "model_type, that is its config_class"
        )
    if name in CONFIG_MAPPING_NAMES:
        raise UserError(f"model: {config.__name__}.model_type={name} is a model of transformers; choose another name")
    AutoConfig.register(name, config, exist_ok=True)
    AutoModelForCausalLM.register(config, found, exist_ok=True)
    return str(name)


def register_models() -> None:
    """Make all model classes known that code of the user, imported so far, defines with a head for a causal LM."""
    for found in _subclasses(PreTrainedModel):
        config = found.config_class
        if config is None or _is_of_transformers(config) or config.model_type in CONFIG_MAPPING:
            continue
        if found.get_output_embeddings is not PreTrainedModel.get_output_embeddings:  # it has a head
            register_model(found)


def check_custom_model(model: object, packing: bool) -> PreTrainedModel:
    """The model, if it can be trained here.

    Args:
        model: what the user's code returned.
        packing: whether a row will hold several pairs, which must not see one another.

    Raises:
        UserError: it is not a `PreTrainedModel`, cannot be called as this module says, or mixes the pairs of a row.
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
            f"model: {type(model).__name__} mixes pairs that share a row: position_ids that start at 0 again must "
            "begin a new text; or set data.packing=false"
        )
    return model


def _is_of_transformers(found: object) -> bool:
    return isinstance(found, type) and found.__module__.startswith("transformers.")


def _subclasses(found: type) -> set[type[PreTrainedModel]]:
    below: set[type[PreTrainedModel]] = set(found.__subclasses__())
    return below.union(*map(_subclasses, below))

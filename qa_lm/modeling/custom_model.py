"""Custom model classes: register them with transformers' Auto classes, and check them before training.

A model class must be a `PreTrainedModel` with its own config class:

- `base_model(input_ids=, position_ids=, use_cache=False)`, the first two (rows, time), returns an object with
  `last_hidden_state` (rows, time, hidden_size). No position sees later ones.
- `get_output_embeddings()` returns the linear layer that maps hidden states to logits (rows, time, vocab_size).
- `model(input_ids=, use_cache=True)` returns an object with these `logits`. Generation is faster if the model fills the
  argument `cache`, as models of transformers do. Packing needs a model that starts a new text where `position_ids`
  restart at 0.
- Its config has `vocab_size` and `max_position_embeddings`, and rebuilds the same model.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from transformers import (
    CONFIG_MAPPING,
    AutoConfig,
    AutoModelForCausalLM,
    DynamicCache,
    PretrainedConfig,
    PreTrainedModel,
)
from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

from qa_lm.errors import UserError, first_line
from qa_lm.modeling.causal_lm import (
    head,
    hidden_states,
    logits,
    once_per_model,
    packs_exactly,
    same_logits,
    sees_later_positions,
)


def register_model(model_class: type[PreTrainedModel]) -> str:
    """Register a class with transformers' Auto classes; returns its model type, the name in config.json.

    Raises:
        UserError: the class has no config class of its own, or its model type is already used by transformers.
    """
    config = model_class.config_class
    name = config.model_type if isinstance(config, type) and issubclass(config, PretrainedConfig) else ""
    if is_from_transformers(model_class) and name:
        return str(name)
    if not name or config is None or is_from_transformers(config):
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
        if config is None or is_from_transformers(config) or config.model_type in CONFIG_MAPPING:
            continue
        if model_class.get_output_embeddings is not PreTrainedModel.get_output_embeddings:  # it has a head
            register_model(model_class)


def check_custom_model(model: object, vocab_size: int, packing: bool) -> PreTrainedModel:
    """Check that a model can be trained, saved and asked, and return it.

    Args:
        model: the object that the user's code returned.
        vocab_size: number of token ids of the tokenizer.
        packing: whether several pairs share a row; the model must then keep them separate.

    Raises:
        UserError: the model does not meet the requirements that this module describes.
    """
    if not isinstance(model, PreTrainedModel):
        raise UserError(f"model: must be a transformers PreTrainedModel, not {type(model).__name__}")
    register_model(type(model))
    name = type(model).__name__
    was_training = model.training
    try:
        with torch.no_grad():
            wrong = _wrong(model.eval(), vocab_size, packing)
    except Exception as error:  # the user's own code can raise anything
        raise UserError(
            f"model: {name} cannot be called: {type(error).__name__}: {first_line(error)}; see docs/extending.md"
        ) from error
    if wrong:
        raise UserError(f"model: {name} {wrong}")
    return model.train(was_training)


def _wrong(model: PreTrainedModel, vocab_size: int, packing: bool) -> str | None:
    """What is wrong with the model; None if nothing is."""
    linear = head(model)
    if not isinstance(linear, nn.Linear):
        return f"has a {type(linear).__name__} from get_output_embeddings(); it must be the nn.Linear of its logits"
    for what, found in (("head", linear), ("embedding", model.get_input_embeddings())):
        rows = found.get_parameter("weight").shape[0]
        if rows != vocab_size:
            return f"has {rows:,} rows in its {what}; the tokenizer has {vocab_size:,} ids: use the given vocab_size"
    if getattr(model.config, "max_position_embeddings", None) is None:
        return "has a config without max_position_embeddings: the most tokens that it sees at once"
    ids = torch.arange(4, device=model.device)[None] % vocab_size
    ours = logits(model, hidden_states(model, ids, ids))
    if ours.shape[:2] != ids.shape:
        return f"returns hidden states of shape {(*ours.shape[:2], linear.in_features)} for ids of shape (1, 4)"
    whole = model(input_ids=ids, use_cache=True).logits
    if whole.shape != ours.shape or not same_logits(whole, ours, model.dtype):
        return "returns logits that differ from its head applied to its body's last_hidden_state"
    if sees_later_positions(model):
        return "lets a position see later ones, so it would be trained to copy: mask them"
    if packing and not packs_exactly(model):
        return (
            "mixes pairs that share a row: where position_ids restart at 0, a new text must start; otherwise set "
            "data.packing=false"
        )
    return _lost_in_config(model)


def _lost_in_config(model: PreTrainedModel) -> str | None:
    """What a saved config.json would lose; None if the config rebuilds the same model."""
    with torch.device("meta"):
        rebuilt = type(model)(type(model.config).from_dict(model.config.to_dict()))
    shapes, found = ({n: w.shape for n, w in each.state_dict().items()} for each in (model, rebuilt))
    if different := sorted(n for n in {*shapes, *found} if shapes.get(n) != found.get(n)):
        return f"is not rebuilt by its config: {different[0]} differs; keep each argument of the config in it"
    return None


@torch.no_grad()
def last_logits(model: PreTrainedModel, texts: Sequence[Sequence[int]]) -> Tensor:
    """The logits after each text, (texts, vocabulary), without a cache; the texts are padded on the right."""
    width = max(map(len, texts))
    ids = torch.tensor([[*text, *[0] * (width - len(text))] for text in texts], device=model.device)
    last = torch.tensor([len(text) - 1 for text in texts], device=model.device)
    return model(input_ids=ids).logits[torch.arange(len(texts), device=model.device), last]


@once_per_model
def continues_from_cache(model: PreTrainedModel) -> bool:
    """Whether the logits after a cached text equal those after the whole text.

    The texts have different lengths and are padded on the left.
    """
    device, vocab_size = model.device, head(model).out_features
    texts = [[(start + place) % vocab_size for place in range(length)] for start, length in ((1, 5), (7, 3))]
    ids = torch.tensor([texts[0], [0, 0, *texts[1]]], device=device)
    mask = torch.tensor([[1] * 5, [0, 0, 1, 1, 1]], device=device)
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    try:
        cache = DynamicCache(config=model.config)
        for part in (slice(0, 4), slice(4, 5)):
            after_cache = model(
                input_ids=ids[:, part],
                attention_mask=mask[:, : part.stop],
                position_ids=positions[:, part],
                cache=cache,
                use_cache=True,
                logits_to_keep=1,
            ).logits[:, -1]
        return same_logits(after_cache, last_logits(model, texts), model.dtype)
    except (TypeError, AttributeError, ValueError, RuntimeError, IndexError):
        return False


def is_from_transformers(value: object) -> bool:
    """Whether this is a class of transformers."""
    return isinstance(value, type) and value.__module__.startswith("transformers.")


def _subclasses(base: type) -> set[type[PreTrainedModel]]:
    direct: set[type[PreTrainedModel]] = set(base.__subclasses__())
    return direct.union(*map(_subclasses, direct))

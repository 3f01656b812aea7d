"""Model classes of the user: made known to transformers' Auto classes, and tried before they are trained.

A model class is a `PreTrainedModel` with a config class of its own:

- `base_model(input_ids=, position_ids=, use_cache=False)`, the first two (rows, time), returns an object with
  `last_hidden_state` (rows, time, hidden_size). No position sees later ones.
- `get_output_embeddings()` returns the linear layer from hidden states to logits (rows, time, vocab_size).
- `model(input_ids=, use_cache=True)` returns an object with these `logits`. A model that fills the argument `cache`, as
  transformers' do, answers faster; packing needs one in which `position_ids` that start at 0 again begin a new text.
- Its config has `vocab_size` and `max_position_embeddings`, and builds the same model again.
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
from qa_lm.modeling.causal_lm import head, hidden_states, packs_exactly, same_logits


def register_model(found: type[PreTrainedModel]) -> str:
    """Make a class known to transformers' Auto classes; returns its model type, by which config.json names it.

    Raises:
        UserError: it has no config class of its own, or one whose model type is taken.
    """
    config = found.config_class
    name = config.model_type if isinstance(config, type) and issubclass(config, PretrainedConfig) else ""
    if is_of_transformers(found) and name:
        return str(name)
    if not name or config is None or is_of_transformers(config):
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
        if config is None or is_of_transformers(config) or config.model_type in CONFIG_MAPPING:
            continue
        if found.get_output_embeddings is not PreTrainedModel.get_output_embeddings:  # it has a head
            register_model(found)


def check_custom_model(model: object, vocab_size: int, packing: bool) -> PreTrainedModel:
    """The model, if it can be trained here, saved, and asked.

    Args:
        model: what the user's code returned.
        vocab_size: token ids of the tokenizer.
        packing: whether a row will hold several pairs, which must not see one another.

    Raises:
        UserError: it is not as this module says.
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
    logits = linear(hidden_states(model, ids, ids))
    if logits.shape[:2] != ids.shape:
        return f"returns hidden states of shape {(*logits.shape[:2], linear.in_features)} for ids of shape (1, 4)"
    whole = model(input_ids=ids, use_cache=True).logits
    if whole.shape != logits.shape or not same_logits(whole, logits):
        return "returns logits that are not its head's of its body's last_hidden_state"
    other = ids.clone()
    other[0, -1] = (other[0, -1] + 1) % vocab_size
    if not same_logits(logits[:, :3], linear(hidden_states(model, other, ids))[:, :3]):
        return "lets a position see later ones, so it would be trained to copy: mask them"
    if packing and not packs_exactly(model):
        return (
            "mixes pairs that share a row: position_ids that start at 0 again must begin a new text; or set "
            "data.packing=false"
        )
    return _lost_in_config(model)


def _lost_in_config(model: PreTrainedModel) -> str | None:
    """What a saved config.json would not tell; None if it builds the same model."""
    with torch.device("meta"):
        again = type(model)(type(model.config).from_dict(model.config.to_dict()))
    shapes, found = ({n: w.shape for n, w in each.state_dict().items()} for each in (model, again))
    if different := sorted(n for n in {*shapes, *found} if shapes.get(n) != found.get(n)):
        return f"is not built again by its config: {different[0]} differs; keep each argument of the config in it"
    return None


@torch.no_grad()
def last_logits(model: PreTrainedModel, texts: Sequence[Sequence[int]]) -> Tensor:
    """The logits after each text, (texts, vocabulary), without a cache: the texts are padded on the right."""
    width = max(map(len, texts))
    ids = torch.tensor([[*text, *[0] * (width - len(text))] for text in texts], device=model.device)
    last = torch.tensor([len(text) - 1 for text in texts], device=model.device)
    return model(input_ids=ids).logits[torch.arange(len(texts), device=model.device), last]


@torch.no_grad()
def continues_from_cache(model: PreTrainedModel) -> bool:
    """Whether a token after a cache has the logits that it has after the whole text, for texts of different lengths
    that are padded on the left."""
    model.eval()
    device, vocab_size = model.device, model.config.vocab_size
    texts = [[(start + place) % vocab_size for place in range(length)] for start, length in ((1, 5), (7, 3))]
    ids = torch.tensor([texts[0], [0, 0, *texts[1]]], device=device)
    mask = torch.tensor([[1] * 5, [0, 0, 1, 1, 1]], device=device)
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    try:
        cache = DynamicCache(config=model.config)
        for part in (slice(0, 4), slice(4, 5)):
            logits = model(
                input_ids=ids[:, part],
                attention_mask=mask[:, : part.stop],
                position_ids=positions[:, part],
                cache=cache,
                use_cache=True,
                logits_to_keep=1,
            ).logits[:, -1]
        return same_logits(logits, last_logits(model, texts))
    except (TypeError, AttributeError, ValueError, RuntimeError, IndexError):
        return False


def is_of_transformers(found: object) -> bool:
    """Whether a class is one of transformers' own."""
    return isinstance(found, type) and found.__module__.startswith("transformers.")


def _subclasses(found: type) -> set[type[PreTrainedModel]]:
    below: set[type[PreTrainedModel]] = set(found.__subclasses__())
    return below.union(*map(_subclasses, below))

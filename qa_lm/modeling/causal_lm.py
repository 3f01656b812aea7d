"""Build a causal language model of transformers from scratch, and call its body and head separately.

- The body returns a hidden state per position; the head maps hidden states to logits. They are called separately, so
  that the loss can run the head only at trained positions.
- Architectures whose logits are not `head(body(x))`, for example scaled or soft-capped ones, are refused.
- Attention needs no mask: with `attention_mask=None` and `use_cache=False` transformers masks causally, and
  `position_ids` that restart at 0 separate examples that share a row.
"""

import difflib
import json
from collections.abc import Container, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from transformers import CONFIG_MAPPING, AutoConfig, AutoModelForCausalLM, PretrainedConfig, PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING, MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from qa_lm.errors import UserError, did_you_mean, first_line

ATTENTION = ("eager", "sdpa")
"""Attention implementations that a configuration may name; other names may download kernels from the hub."""
ORIGIN_KEYS = ("architectures", "transformers_version", "_name_or_path", "auto_map")
"""Keys of a transformers config that describe its origin, not the model."""
TOKEN_IDS = ("bos_token_id", "eos_token_id", "pad_token_id")
"""Arguments that every config accepts, even if its dict omits them because they are None."""
# Names of the dropout probabilities in different architectures.
DROPOUT_NAMES = (
    "resid_pdrop",
    "embd_pdrop",
    "attn_pdrop",
    "attention_dropout",
    "hidden_dropout",
    "residual_dropout",
    "embedding_dropout",
)


def build_causal_lm(
    architecture: str,
    vocab_size: int,
    hidden_size: int,
    layers: int,
    heads: int,
    context: int,
    dropout: float,
    eos_id: int,
    extra: dict[str, Any] | None = None,
) -> PreTrainedModel:
    """Build a model with weights initialised from torch's global generator; without weights on the meta device.

    Args:
        architecture: a causal-LM model type of transformers, such as "gpt2" or "llama", or a registered one.
        vocab_size: number of token ids.
        hidden_size: width of the residual stream.
        layers: number of transformer blocks.
        heads: attention heads per block.
        context: maximum sequence length in tokens.
        dropout: probability of every dropout in the architecture.
        eos_id: id of EOS, where generation stops.
        extra: further arguments of the architecture's config, under their own names.

    Raises:
        UserError: the architecture or an argument is unknown, or the logits are not `head(body(x))`.
    """
    known = _known_arguments(architecture, extra or {})
    usual = {
        "hidden_size": hidden_size,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": heads,
        "max_position_embeddings": context,
        **dict.fromkeys(DROPOUT_NAMES, dropout),
    }
    tokens = {"vocab_size": vocab_size, "bos_token_id": eos_id, "eos_token_id": eos_id, "pad_token_id": None}
    arguments = tokens | {name: value for name, value in usual.items() if name in known}
    # All at once, so that values that a config derives (such as head_dim from heads) are derived from ours.
    try:
        config = AutoConfig.for_model(architecture, **arguments | (extra or {}))
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    except (ValueError, TypeError, RuntimeError, AttributeError) as error:
        raise UserError(f"model: transformers cannot build this {architecture}: {first_line(error)}") from None
    if model.device.type != "meta":  # on the meta device only shapes are needed
        _check_plain_head(model, architecture)
    return model


def plain_config(model: PreTrainedModel) -> dict[str, Any]:
    """The configuration of a model as plain values, from which `causal_lm_from_config` rebuilds it."""
    config = json.loads(model.config.to_json_string(use_diff=True))
    plain = {name: value for name, value in config.items() if name not in ORIGIN_KEYS}
    attention = model.config._attn_implementation
    return plain | ({"attn_implementation": attention} if attention in ATTENTION else {})


def causal_lm_from_config(config: Mapping[str, Any]) -> PreTrainedModel:
    """Build a model with new weights from the contents of a transformers config.json.

    No code that the config names is run: only transformers' own architectures and attention are built.

    Args:
        config: `model_type` and arguments of its config, such as `hidden_size` and `num_hidden_layers`.

    Raises:
        UserError: the architecture or an argument is unknown, the logits are not `head(body(x))`, or the config names
            third-party code.
    """
    arguments = {name: value for name, value in config.items() if name not in ORIGIN_KEYS}
    architecture = str(arguments.pop("model_type", None))
    attention = arguments.pop("attn_implementation", "sdpa")
    if attention not in ATTENTION or _names_code(arguments):
        raise UserError(f"model: its configuration is refused: it would run third-party code (attention {attention})")
    _known_arguments(architecture, arguments, "model: ")
    try:
        own = AutoConfig.for_model(architecture, **arguments)
        dtype = own.dtype or torch.float32
        model = AutoModelForCausalLM.from_config(
            own, dtype=dtype, attn_implementation=attention, trust_remote_code=False
        )
    except (ValueError, TypeError, RuntimeError, AttributeError, KeyError) as error:
        raise UserError(f"model: transformers cannot build this {architecture}: {first_line(error)}") from None
    if model.dtype == torch.float32:
        _check_plain_head(model, architecture)
    return model


def _names_code(value: object) -> bool:
    """Whether plain values contain, at any depth, a key that makes transformers download code."""
    if isinstance(value, Mapping):
        return any(
            str(key).endswith(("_implementation", "auto_map", "quantization_config")) or _names_code(each)
            for key, each in value.items()
        )
    return isinstance(value, list | tuple) and any(_names_code(each) for each in value)


def hidden_states(model: PreTrainedModel, inputs: Tensor, positions: Tensor) -> Tensor:
    """Run the body.

    Args:
        model: any causal LM of transformers.
        inputs: token ids (rows, time).
        positions: position of each token in its example (rows, time).

    Returns:
        Hidden states (rows, time, hidden_size).
    """
    return model.base_model(input_ids=inputs, position_ids=positions, use_cache=False).last_hidden_state


def head(model: PreTrainedModel) -> nn.Linear:
    """The linear layer that maps hidden states to logits."""
    return model.get_output_embeddings()


def embeddings(model: PreTrainedModel) -> list[nn.Module]:
    """The modules whose matrices are indexed by token or position: embeddings and the head."""
    return [module for module in model.modules() if isinstance(module, nn.Embedding)] + [head(model)]


def parameter_count(model: nn.Module, trained: bool = False) -> int:
    """Number of parameters, or of those that are not frozen; tied weights count once."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad or not trained)


def _known_arguments(architecture: str, extra: dict[str, Any], place: str = "model.extra.") -> set[str]:
    """Check the extra arguments, and return all argument names of the architecture's config.

    Args:
        architecture: a model type of transformers.
        extra: arguments to check.
        place: prefix of an argument in error messages.
    """
    known = [name for name in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES if name in CONFIG_MAPPING]
    if architecture not in known and not _is_registered(architecture):
        close = difflib.get_close_matches(architecture, known, 3)
        raise UserError(
            f"model.architecture={architecture}: transformers has no causal LM of this type; "
            f"did you mean {' or '.join(close) or 'gpt2 or llama'}?"
        )
    config: PretrainedConfig = AutoConfig.for_model(architecture)
    # transformers silently stores unknown arguments, so a typo would have no effect.
    arguments = {*config.to_dict(), *config.attribute_map, *TOKEN_IDS}
    for name in extra:
        if name not in arguments:
            hint = did_you_mean(name, arguments)
            raise UserError(f"{place}{name}: {architecture} has no such argument{hint}")
    return arguments


def _is_registered(architecture: str) -> bool:
    """Whether a model type was registered with the Auto classes, and is not one of transformers' own."""
    registered: Container[str] = CONFIG_MAPPING._extra_content
    return architecture in registered and CONFIG_MAPPING[architecture] in MODEL_FOR_CAUSAL_LM_MAPPING._extra_content


@torch.no_grad()
def packs_exactly(model: PreTrainedModel) -> bool:
    """Whether packed sequences, run through body and head separately, have the same logits as each sequence alone.

    This holds for all architectures that qa_lm trains; others may scale their logits, or ignore `position_ids`.
    """
    model.eval()
    ids = torch.arange(1, 10, device=model.device)[None] % model.config.vocab_size
    positions = torch.tensor([[0, 1, 2, 3, 0, 1, 2, 3, 4]], device=model.device)
    try:
        packed = head(model)(hidden_states(model, ids, positions))[0]
        alone = torch.cat([model(input_ids=part).logits[0] for part in (ids[:, :4], ids[:, 4:])])
    except (TypeError, AttributeError, ValueError, RuntimeError):
        return False
    return same_logits(packed, alone)


def same_logits(one: Tensor, other: Tensor) -> bool:
    """Whether logits are equal up to rounding, also where all are close to 0, as those of fresh weights are."""
    scale = min(1.0, float(other.abs().max()))
    return torch.allclose(one.float(), other.float(), atol=1e-3 * scale, rtol=1e-3)


@torch.no_grad()
def _check_plain_head(model: PreTrainedModel, architecture: str) -> None:
    if not isinstance(model.get_output_embeddings(), nn.Linear):
        raise UserError(f"model.architecture={architecture}: its head is not a linear layer; choose another")
    inputs = torch.arange(4)[None] % model.config.vocab_size
    positions = torch.arange(4)[None]
    model.eval()
    ours = head(model)(hidden_states(model, inputs, positions))
    theirs = model(input_ids=inputs, position_ids=positions, use_cache=False).logits
    model.train()
    if not torch.allclose(ours, theirs, atol=1e-4, rtol=1e-4):
        raise UserError(
            f"model.architecture={architecture}: its logits are not a linear function of its hidden states; choose "
            "another"
        )

"""A causal language model of transformers, from scratch, in two parts: body and head.

- The body gives a hidden state per position; the head turns hidden states into logits. The loss runs the head only
  where a target is trained, so the two are called apart.
- An architecture whose logits are more than `head(body(x))` (scaled, soft-capped) is refused at build.
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

from qa_lm.errors import UserError, first_line

ATTENTION = ("eager", "sdpa")
"""Implementations of attention that a configuration may name; others may be programs of the hub."""
NOT_OF_THE_MODEL = ("architectures", "transformers_version", "_name_or_path", "auto_map")
"""Entries of a transformers config that say where it comes from."""
TOKEN_IDS = ("bos_token_id", "eos_token_id", "pad_token_id")
"""Arguments that every config takes, and that some leave out where they are None."""
# What different architectures call their dropout probabilities.
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
    """A model with fresh weights, drawn from torch's global generator; on the meta device, one without weights.

    Args:
        architecture: a causal-LM model type of transformers, such as "gpt2" or "llama", or a registered one.
        vocab_size: number of token ids.
        hidden_size: width of the residual stream.
        layers: number of blocks.
        heads: attention heads per block.
        context: the most tokens seen at once.
        dropout: probability, for every dropout the architecture has.
        eos_id: the id that ends an answer; generation stops there.
        extra: further arguments of the architecture's config, by their own names.

    Raises:
        UserError: no such architecture or argument, or one whose logits are not head(body(x)).
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
    # All at once, so that what a config derives from these (head_dim from heads, say) is derived from ours.
    try:
        config = AutoConfig.for_model(architecture, **arguments | (extra or {}))
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    except (ValueError, TypeError, RuntimeError, AttributeError) as error:
        raise UserError(f"model: transformers cannot build this {architecture}: {first_line(error)}") from None
    if model.device.type != "meta":  # where only its shapes are asked for
        _check_plain_head(model, architecture)
    return model


def plain_config(model: PreTrainedModel) -> dict[str, Any]:
    """The configuration of a model as numbers, texts, lists and dicts; `causal_lm_from_config` builds it again."""
    config = json.loads(model.config.to_json_string(use_diff=True))
    plain = {name: value for name, value in config.items() if name not in NOT_OF_THE_MODEL}
    attention = model.config._attn_implementation
    return plain | ({"attn_implementation": attention} if attention in ATTENTION else {})


def causal_lm_from_config(config: Mapping[str, Any]) -> PreTrainedModel:
    """A model with fresh weights from the entries of a transformers config, as config.json has them.

    Nothing that it names is run: only transformers' own architectures and attention are built.

    Args:
        config: `model_type` and arguments of its config, such as `hidden_size` and `num_hidden_layers`.

    Raises:
        UserError: no such architecture or argument, one whose logits are not head(body(x)), or code of others.
    """
    arguments = {name: value for name, value in config.items() if name not in NOT_OF_THE_MODEL}
    architecture = str(arguments.pop("model_type", None))
    attention = arguments.pop("attn_implementation", "sdpa")
    if attention not in ATTENTION or _names_code(arguments):
        raise UserError(f"model: its configuration asks for code of others, which is not run (attention {attention})")
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
    """Whether plain values hold, at any depth, an entry by which transformers would fetch a program."""
    if isinstance(value, Mapping):
        return any(
            str(key).endswith(("_implementation", "auto_map", "quantization_config")) or _names_code(each)
            for key, each in value.items()
        )
    return isinstance(value, list | tuple) and any(_names_code(each) for each in value)


def hidden_states(model: PreTrainedModel, inputs: Tensor, positions: Tensor) -> Tensor:
    """The body's output.

    Args:
        model: any causal LM of transformers.
        inputs: token ids (rows, time).
        positions: position of each token in its example (rows, time).

    Returns:
        (rows, time, hidden_size)
    """
    return model.base_model(input_ids=inputs, position_ids=positions, use_cache=False).last_hidden_state


def head(model: PreTrainedModel) -> nn.Linear:
    """The linear map from a hidden state to logits."""
    return model.get_output_embeddings()


def embeddings(model: PreTrainedModel) -> list[nn.Module]:
    """The modules whose matrices are indexed by token or position: tables of embeddings, and the head."""
    return [module for module in model.modules() if isinstance(module, nn.Embedding)] + [head(model)]


def parameter_count(model: nn.Module) -> int:
    """Number of trainable numbers; tied weights count once."""
    return sum(parameter.numel() for parameter in model.parameters())


def _known_arguments(architecture: str, extra: dict[str, Any], place: str = "model.extra.") -> set[str]:
    """The names that the architecture's config knows; `place` stands before a wrong one in the error."""
    known = [name for name in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES if name in CONFIG_MAPPING]
    if architecture not in known and not _is_registered(architecture):
        close = difflib.get_close_matches(architecture, known, 3)
        raise UserError(
            f"model.architecture={architecture}: transformers has no causal LM of this type; "
            f"did you mean {' or '.join(close) or 'gpt2 or llama'}?"
        )
    config: PretrainedConfig = AutoConfig.for_model(architecture)
    # transformers stores any argument it is given without a word, so a typo would change nothing.
    arguments = {*config.to_dict(), *config.attribute_map, *TOKEN_IDS}
    for name in extra:
        if name not in arguments:
            close = difflib.get_close_matches(name, arguments, 1)
            hint = f"; did you mean {close[0]}?" if close else ""
            raise UserError(f"{place}{name}: {architecture} has no such argument{hint}")
    return arguments


def _is_registered(architecture: str) -> bool:
    """Whether a model type is none of transformers' own, and was registered with its Auto classes."""
    registered: Container[str] = CONFIG_MAPPING._extra_content
    return architecture in registered and CONFIG_MAPPING[architecture] in MODEL_FOR_CAUSAL_LM_MAPPING._extra_content


@torch.no_grad()
def packs_exactly(model: PreTrainedModel) -> bool:
    """Whether sequences side by side in a row, through body and head apart, have the logits that each has alone.

    So it is for the architectures that qa_lm trains; others may scale their logits, or not take positions.
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
        raise UserError(f"model.architecture={architecture}: its head is not one matrix; choose another")
    inputs = torch.arange(4)[None] % model.config.vocab_size
    positions = torch.arange(4)[None]
    model.eval()
    ours = head(model)(hidden_states(model, inputs, positions))
    theirs = model(input_ids=inputs, position_ids=positions, use_cache=False).logits
    model.train()
    if not torch.allclose(ours, theirs, atol=1e-4, rtol=1e-4):
        raise UserError(
            f"model.architecture={architecture}: its logits are not a linear map of its hidden states; choose another"
        )

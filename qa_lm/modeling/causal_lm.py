"""Build a causal language model of transformers from scratch, and call its body and head separately.

- The body returns a hidden state per position; the head maps hidden states to logits. They are called separately, so
  that the loss can run the head only at trained positions.
- Some architectures multiply their logits by a constant (Cohere, Granite): `hidden_states` is multiplied by it, so the
  logits are still `head(hidden)`.
- Some cap their logits softly, `cap * tanh(logits / cap)` (Gemma 2): `logits` and the loss apply the cap.
- `check_logits` compares these logits with the model's own. Architectures that compute theirs otherwise are refused.
- Attention needs no mask: with `attention_mask=None` and `use_cache=False` transformers masks causally, and
  `position_ids` that restart at 0 separate examples that share a row; `packs_exactly` checks this.
"""

import functools
import json
from collections.abc import Callable, Mapping
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, Cache, PreTrainedModel

from qa_lm.errors import UserError, first_line
from qa_lm.modeling.config_arguments import (
    CONTEXTS,
    DROPOUT_NAMES,
    NO_CONTEXT,
    SOFT_CAPS,
    known_arguments,
    logit_scale,
    names_code,
    number,
)

ATTENTION = ("eager", "sdpa")
"""Attention implementations that a configuration may name; other names may download kernels from the hub."""
ORIGIN_KEYS = ("architectures", "transformers_version", "_name_or_path", "auto_map")
"""Keys of a transformers config that describe its origin, not the model."""
LARGE = 100.0
"""Largest logit in `check_logits`: those of fresh weights are so small that a cap would not be seen."""


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
        UserError: the architecture or an argument is unknown, or `check_logits` refuses the model.
    """
    known = known_arguments(architecture, extra or {})
    usual = {
        "hidden_size": hidden_size,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": heads,
        **dict.fromkeys(CONTEXTS, context),
        **dict.fromkeys(DROPOUT_NAMES, dropout),
    }
    tokens = {"vocab_size": vocab_size, "bos_token_id": eos_id, "eos_token_id": eos_id, "pad_token_id": None}
    arguments = tokens | {name: value for name, value in usual.items() if name in known}
    # All at once, so that values that a config derives (such as head_dim from heads) are derived from ours.
    try:
        config = AutoConfig.for_model(architecture, **arguments | (extra or {}))
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    except Exception as error:  # the check of a config can raise anything
        raise UserError(f"model: transformers cannot build this {architecture}: {first_line(error)}") from None
    if model.device.type != "meta":  # on the meta device only shapes are needed
        check_logits(model, f"model.architecture={architecture}")
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
        UserError: the architecture or an argument is unknown, `check_logits` refuses the model, or the config names
            third-party code.
    """
    arguments = {name: value for name, value in config.items() if name not in ORIGIN_KEYS}
    architecture = str(arguments.pop("model_type", None))
    attention = arguments.pop("attn_implementation", "sdpa")
    if attention not in ATTENTION or names_code(arguments):
        raise UserError(f"model: its configuration is refused: it would run third-party code (attention {attention})")
    known_arguments(architecture, arguments, "model: ")
    try:
        own = AutoConfig.for_model(architecture, **arguments)
        dtype = own.dtype or torch.float32
        model = AutoModelForCausalLM.from_config(
            own, dtype=dtype, attn_implementation=attention, trust_remote_code=False
        )
    except Exception as error:  # the check of a config can raise anything
        raise UserError(f"model: transformers cannot build this {architecture}: {first_line(error)}") from None
    if model.device.type != "meta":
        check_logits(model, f"model.architecture={architecture}")
    return model


def hidden_states(
    model: PreTrainedModel, inputs: Tensor, positions: Tensor, mask: Tensor | None = None, cache: Cache | None = None
) -> Tensor:
    """Run the body.

    Args:
        model: any causal LM of transformers.
        inputs: token ids (rows, time).
        positions: position of each token in its example (rows, time).
        mask: 1 for tokens, 0 for padding (rows, time of cache and inputs); None without padding.
        cache: keys and values of the tokens before the inputs; those of the inputs are appended to it.

    Returns:
        Hidden states (rows, time, hidden_size), multiplied by the constant that the architecture multiplies logits by.
    """
    # Models of the user's own classes need not know of masks and caches.
    options = {name: value for name, value in {"attention_mask": mask, "cache": cache}.items() if value is not None}
    output = model.base_model(input_ids=inputs, position_ids=positions, use_cache="cache" in options, **options)
    scale = logit_scale(model.config)
    states = output.last_hidden_state
    return states if scale == 1 else states * scale


def head(model: PreTrainedModel) -> nn.Linear:
    """The linear layer that maps hidden states to logits, before the soft cap if the model has one."""
    return model.get_output_embeddings()


def logits(model: PreTrainedModel, hidden: Tensor) -> Tensor:
    """The logits at some positions, (..., vocabulary), from `hidden_states`; soft-capped ones in at least float32."""
    uncapped, cap = head(model)(hidden), soft_cap(model)
    if cap is None:
        return uncapped
    return uncapped.to(torch.promote_types(uncapped.dtype, torch.float32)).div(cap).tanh_().mul_(cap)


def soft_cap(model: PreTrainedModel) -> float | None:
    """The bound of soft-capped logits: cap * tanh(logits / cap); None for most architectures."""
    return number(model.config, SOFT_CAPS)


def context_of(model: PreTrainedModel) -> int:
    """The maximum number of tokens that a model sees at once."""
    return int(number(model.config, CONTEXTS) or NO_CONTEXT)


def embeddings(model: PreTrainedModel) -> list[nn.Module]:
    """The modules whose matrices are indexed by token or position: embeddings and the head."""
    return [module for module in model.modules() if isinstance(module, nn.Embedding)] + [head(model)]


def blocks(model: nn.Module) -> list[nn.Module]:
    """The blocks of a network: its longest list of modules of one class."""
    lists = [list(each) for each in model.modules() if isinstance(each, nn.ModuleList)]
    return max((each for each in lists if len({type(block) for block in each}) == 1), key=len, default=[])


def parameter_count(model: nn.Module, trained: bool = False) -> int:
    """Number of parameters, or of those that are not frozen; tied weights count once."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad or not trained)


Check = Callable[[PreTrainedModel], bool]


def once_per_model(check: Check) -> Check:
    """Remember the result of a check, which depends on the model's structure only and takes several forward passes."""
    results: WeakKeyDictionary[PreTrainedModel, bool] = WeakKeyDictionary()

    @functools.wraps(check)
    def remembered(model: PreTrainedModel) -> bool:
        if model not in results:
            was_training = model.training
            with torch.no_grad():
                results[model] = check(model.eval())
            model.train(was_training)
        return results[model]

    return remembered


@once_per_model
def packs_exactly(model: PreTrainedModel) -> bool:
    """Whether packed sequences, run through body and head separately, have the same logits as each sequence alone.

    This does not hold if the body ignores `position_ids` (BLOOM) or passes a state along the row (Mamba).
    """
    ids = torch.arange(1, 10, device=model.device)[None] % head(model).out_features
    positions = torch.tensor([[0, 1, 2, 3, 0, 1, 2, 3, 4]], device=model.device)
    other = torch.where(torch.arange(9, device=model.device) < 4, ids.flip(1), ids)  # another first sequence
    try:
        packed, after_other = (logits(model, hidden_states(model, each, positions))[0] for each in (ids, other))
        alone = torch.cat([model(input_ids=part).logits[0] for part in (ids[:, :4], ids[:, 4:])])
    except (TypeError, AttributeError, ValueError, RuntimeError, IndexError):
        return False
    # Rows of the same shape are rounded alike, so a small difference shows that the first sequence is seen.
    unseen = same_logits(after_other[4:], packed[4:], model.dtype, 1e-5)
    return unseen and same_logits(packed, alone, model.dtype)


def check_packing(model: PreTrainedModel, name: str) -> None:
    """Refuse a model that cannot be trained on packed rows.

    Raises:
        UserError: pairs that share a row would see each other.
    """
    if not packs_exactly(model):
        raise UserError(f"{name}: pairs that share a row would see each other in this model; set data.packing=false")


def same_logits(one: Tensor, other: Tensor, dtype: torch.dtype = torch.float32, tolerance: float = 1e-3) -> bool:
    """Whether logits are equal up to rounding in a dtype, also where all are close to 0, as with fresh weights."""
    largest, rounding = float(other.abs().max()), 4 * torch.finfo(dtype).eps
    absolute = max(tolerance * min(1.0, largest), rounding * largest)
    return torch.allclose(one.float(), other.float(), atol=absolute, rtol=max(tolerance, rounding))


@torch.no_grad()
def check_logits(model: PreTrainedModel, name: str) -> None:
    """Check that the logits of body and head equal the model's own, and that no position sees later ones.

    Args:
        model: any causal LM of transformers, with weights.
        name: what the user chose, for messages: "model.architecture=gpt2".

    Raises:
        UserError: they differ.
    """
    linear = model.get_output_embeddings()
    if not isinstance(linear, nn.Linear) or type(linear).forward is not nn.Linear.forward:
        raise UserError(f"{name}: its head is not a linear layer; choose another")
    was_training = model.training
    try:
        wrong = _wrong_logits(model.eval())
    except Exception as error:  # models of other kinds can raise anything
        raise UserError(f"{name}: cannot be run on text alone: {first_line(error)}; choose another") from None
    model.train(was_training)
    if wrong:
        raise UserError(f"{name}: {wrong}; choose another")


def _wrong_logits(model: PreTrainedModel) -> str | None:
    inputs = torch.arange(4, device=model.device)[None] % head(model).out_features
    hidden = hidden_states(model, inputs, inputs)
    scale = LARGE / head(model)(hidden).abs().max().clamp(min=1e-6)
    hook = head(model).register_forward_hook(lambda module, arguments, output: output * scale)
    try:
        ours = logits(model, hidden)
        theirs = model(input_ids=inputs, position_ids=inputs, use_cache=False).logits
    finally:
        hook.remove()
    if theirs.shape != ours.shape or not same_logits(ours, theirs, model.dtype):
        return "its logits are not a linear function of its hidden states, scaled or soft-capped"
    if sees_later_positions(model):
        return "it lets a position see later ones"
    return None


def sees_later_positions(model: PreTrainedModel) -> bool:
    """Whether the logits at a position depend on tokens after it."""
    inputs = torch.arange(4, device=model.device)[None] % head(model).out_features
    other = inputs.clone()
    other[0, -1] = (other[0, -1] + 1) % head(model).out_features
    before, after = (head(model)(hidden_states(model, each, inputs))[:, :3] for each in (inputs, other))
    return not same_logits(before, after, model.dtype)

"""A model's settings and weights as GGUF names them.

- Llama's rotary pairs are (i, i + d/2) in transformers and (2i, 2i + 1) in ggml, so rows of its queries and keys change
  places.
- GPT-2's matrices are transposed, since transformers keeps them as (inputs, outputs).
- Whatever a setting does that llama.cpp does not compute is refused.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from qa_lm.data.pretrained.gguf_weights import ARCHITECTURES, ROPE_FACTORS
from qa_lm.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

USUAL: dict[str, dict[str, Any]] = {
    "gpt2": {
        "activation_function": "gelu_new",
        "scale_attn_weights": True,
        "scale_attn_by_inverse_layer_idx": False,
        "add_cross_attention": False,
    },
    "llama": {"hidden_act": "silu"},
    "qwen2": {"hidden_act": "silu", "use_sliding_window": False},
    "qwen3": {"hidden_act": "silu", "use_sliding_window": False, "attention_bias": False},
}
"""By architecture, the values of settings that llama.cpp computes."""
NO_OTHERS: tuple[str, ...] = ("logit_scale", "logits_scaling", "final_logit_softcapping", "attn_logit_softcapping")
"""Settings that must be absent, zero or false."""


def check_model(config: Any) -> None:
    """Refuse a model that llama.cpp cannot compute from what is written.

    Args:
        config: the model's configuration, of transformers.

    Raises:
        UserError: names the architecture or the setting.
    """
    kind = config.model_type
    if kind not in ARCHITECTURES:
        raise UserError(f"its architecture is {kind}; {', '.join(ARCHITECTURES)} are supported")
    wanted: dict[str, Any] = {**USUAL[kind], **dict.fromkeys(NO_OTHERS)}
    for name, value in wanted.items():
        given = getattr(config, name, value)
        if given != value and (value is not None or given):
            raise UserError(f"a {kind} model with {name}={given} is not supported")
    rope = _rope(config)
    if rope.get("rope_type", "default") not in ("default", "llama3") or rope.get("partial_rotary_factor", 1.0) != 1.0:
        raise UserError(f"a {kind} model with rope_parameters={rope} is not supported")


def model_fields(config: Any) -> dict[str, Any]:
    """The fields of GGUF that describe a model, by their names without the architecture."""
    fields = {
        "context_length": config.max_position_embeddings,
        "embedding_length": config.hidden_size,
        "block_count": config.num_hidden_layers,
        "attention.head_count": config.num_attention_heads,
        "vocab_size": config.vocab_size,
    }
    if config.model_type == "gpt2":
        return fields | {
            "feed_forward_length": config.n_inner or 4 * config.hidden_size,
            "attention.layer_norm_epsilon": float(config.layer_norm_epsilon),
        }
    width = head_width(config)
    return fields | {
        "feed_forward_length": config.intermediate_size,
        "attention.head_count_kv": config.num_key_value_heads,
        "attention.layer_norm_rms_epsilon": float(config.rms_norm_eps),
        "attention.key_length": width,
        "attention.value_length": width,
        "rope.dimension_count": width,
        "rope.freq_base": float(_rope(config)["rope_theta"]),
    }


def model_tensors(model: "PreTrainedModel") -> Iterator[tuple[str, np.ndarray]]:
    """The weights by their names in GGUF, float32, in ggml's order; a tied head is left out."""
    import gguf

    config: Any = model.config
    architecture = next(key for key, name in gguf.MODEL_ARCH_NAMES.items() if name == config.model_type)
    names = gguf.get_tensor_name_map(architecture, config.num_hidden_layers)
    for name, parameter in model.named_parameters():
        stem, ending = name.rsplit(".", 1)
        found = names.get_name(stem)
        if found is None:
            raise UserError(f"a {config.model_type} model with {name} is not supported")
        yield f"{found}.{ending}", in_ggml_order(stem, parameter.detach().float().cpu().numpy(), config)
    if _rope(config).get("rope_type") == "llama3":
        yield ROPE_FACTORS, _rope_factors(model)


def in_ggml_order(stem: str, weight: np.ndarray, config: Any) -> np.ndarray:
    """A weight as llama.cpp expects it.

    Args:
        stem: its name in transformers, without `.weight` or `.bias`.
        weight: the weight.
        config: the model's configuration.
    """
    part = stem.rsplit(".", 1)[-1]
    if config.model_type == "llama" and part in ("q_proj", "k_proj"):
        heads = config.num_attention_heads if part == "q_proj" else config.num_key_value_heads
        halves = weight.reshape(heads, 2, weight.shape[0] // heads // 2, *weight.shape[1:])
        return np.ascontiguousarray(halves.swapaxes(1, 2).reshape(weight.shape))
    if config.model_type == "gpt2" and part.startswith("c_") and weight.ndim == 2:
        return np.ascontiguousarray(weight.T)
    return weight


def head_width(config: Any) -> int:
    """Width of a head of attention."""
    return int(getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads)


def _rope(config: Any) -> dict[str, Any]:
    return dict(getattr(config, "rope_parameters", None) or {})


def _rope_factors(model: "PreTrainedModel") -> np.ndarray:
    """The factors by which Llama 3 divides rotary frequencies, (head width / 2,), float32."""
    width = head_width(model.config)
    plain = _rope(model.config)["rope_theta"] ** -(np.arange(0, width, 2) / width)
    body: Any = model.base_model
    return (plain / body.rotary_emb.inv_freq.detach().cpu().double().numpy()).astype(np.float32)

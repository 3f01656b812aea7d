"""The arguments of transformers' configs: which an architecture has, and what those under several names mean."""

import difflib
from collections.abc import Container, Mapping
from typing import Any

from transformers import CONFIG_MAPPING, AutoConfig, PretrainedConfig
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING, MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from qa_lm.errors import UserError, did_you_mean, first_line

COMMON = ("bos_token_id", "eos_token_id", "pad_token_id", "max_position_embeddings")
"""Arguments that every config accepts and saves, even if its dict omits them because they are None."""
CONTEXTS = ("max_position_embeddings", "max_seq_len")
"""Names of the context in configs."""
NO_CONTEXT = 1 << 20
"""Context in tokens of a model whose config names none, such as BLOOM and Mamba: more than fits into memory."""
MULTIPLIERS = ("logit_scale", "lm_head_multiplier")
"""Names in configs of a constant that multiplies the logits."""
DIVISORS = ("logits_scaling", "logits_mup_width_multiplier")
"""Names in configs of a constant that divides the logits."""
SOFT_CAPS = ("final_logit_softcapping", "logits_soft_cap", "output_logit_soft_cap")
"""Names in configs of the bound of soft-capped logits."""
DROPOUT_NAMES = (
    "resid_pdrop",
    "embd_pdrop",
    "attn_pdrop",
    "attention_dropout",
    "hidden_dropout",
    "residual_dropout",
    "embedding_dropout",
    "dropout",
    "activation_dropout",
)
"""Names in configs of dropout probabilities."""


def logit_scale(config: PretrainedConfig) -> float:
    """The constant that an architecture multiplies its logits by; 1 for most."""
    divisor = number(config, DIVISORS) or 1.0
    # HyperCLOVA X multiplies by what Granite divides by.
    factor = divisor if config.model_type == "hyperclovax" else 1 / divisor
    return factor * (number(config, MULTIPLIERS) or 1.0)


def number(config: PretrainedConfig, names: tuple[str, ...]) -> float | None:
    """The first number that a config has under these names; models of text and images nest the config of the text."""
    of_text = getattr(config, "text_config", config)
    values = (getattr(of_text, name, None) for name in names)
    return next((value for value in values if isinstance(value, int | float)), None)


def known_arguments(architecture: str, extra: dict[str, Any], place: str = "model.extra.") -> set[str]:
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
    try:
        config: PretrainedConfig = AutoConfig.for_model(architecture)
    except Exception as error:  # the check of a config can raise anything
        raise UserError(f"model.architecture={architecture}: cannot be used: {first_line(error)}") from None
    # transformers silently stores unknown arguments, so a typo would have no effect.
    arguments = {*config.to_dict(), *config.attribute_map, *COMMON}
    for name in extra:
        if name not in arguments:
            hint = did_you_mean(name, arguments)
            raise UserError(f"{place}{name}: {architecture} has no such argument{hint}")
    return arguments


def _is_registered(architecture: str) -> bool:
    """Whether a model type was registered with the Auto classes, and is not one of transformers' own."""
    registered: Container[str] = CONFIG_MAPPING._extra_content
    return architecture in registered and CONFIG_MAPPING[architecture] in MODEL_FOR_CAUSAL_LM_MAPPING._extra_content


def names_code(value: object) -> bool:
    """Whether plain values contain, at any depth, a key that makes transformers download code."""
    if isinstance(value, Mapping):
        return any(
            str(key).endswith(("_implementation", "auto_map", "quantization_config")) or names_code(each)
            for key, each in value.items()
        )
    return isinstance(value, list | tuple) and any(names_code(each) for each in value)

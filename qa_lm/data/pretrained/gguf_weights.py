"""The weights of a GGUF file, as a model of transformers in float32.

transformers dequantizes the weights, but leaves out some fields and, without a word, each tensor that it does not know.
So the fields are completed here, and a file with tensors that have no place in the model is refused.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from qa_lm.errors import UserError, first_line

if TYPE_CHECKING:
    from gguf import GGUFReader
    from transformers import PreTrainedConfig, PreTrainedModel

ARCHITECTURES = ("gpt2", "llama", "qwen2", "qwen3")
"""Architectures whose conversion is tested against llama.cpp."""
ROPE_FACTORS = "rope_freqs.weight"
"""Tensor with the factors by which Llama 3.1 to 3.3 divide rotary frequencies."""
LLAMA3_ROPE = {"low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}


def check_architecture(fields: Mapping[str, Any], path: Path) -> None:
    """Refuse a file with an architecture that is not supported, or with a part of the weights.

    Raises:
        UserError: see above.
    """
    architecture = fields.get("general.architecture")
    scaling = fields.get(f"{architecture}.rope.scaling.type", "none")
    if architecture not in ARCHITECTURES or scaling != "none":
        scaled = "" if scaling == "none" else f" with rope.scaling.type={scaling}"
        raise UserError(
            f"{path}: its architecture is not supported: {architecture}{scaled}; supported are "
            f"{', '.join(ARCHITECTURES)}; give a folder with safetensors"
        )
    if fields.get("split.count", 1) not in (0, 1):
        raise UserError(f"{path}: is one of {fields['split.count']} parts; join them with llama-gguf-split --merge")


def load_model(path: Path, fields: Mapping[str, Any], reader: "GGUFReader") -> "PreTrainedModel":
    """Load the model. Its configuration does not mention GGUF, since transformers would then refuse to save it.

    Raises:
        UserError: the tensors are not those of the model that the fields describe.
    """
    import torch
    from transformers import AutoModelForCausalLM

    config = _config(path, fields, reader)
    try:
        model = _empty_model(config, path, reader)
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            path.parent, gguf_file=path.name, config=config, dtype=torch.float32, output_loading_info=True
        )
        read, loading = loaded
        if loading["missing_keys"]:  # transformers would leave them random
            raise ValueError(f"it has no {min(loading['missing_keys'])}")
        model.load_state_dict(read.state_dict(), assign=True)
    except UserError:
        raise
    except Exception as error:  # errors of many libraries
        raise UserError(f"{path}: the model cannot be read: {first_line(error)}") from None
    model.tie_weights()
    return model


def _empty_model(config: "PreTrainedConfig", path: Path, reader: "GGUFReader") -> "PreTrainedModel":
    """A model without weights, for which the file has as many tensors and numbers as it needs.

    Raises:
        UserError: the file has more or fewer.
    """
    import torch
    from transformers import AutoModelForCausalLM

    sizes = [tensor.n_elements for tensor in reader.tensors if tensor.name != ROPE_FACTORS]
    if config.num_hidden_layers <= len(sizes):
        with torch.device("meta"):
            model: PreTrainedModel = AutoModelForCausalLM.from_config(config)
        needed = [weight.numel() for weight in model.parameters()]
        if sorted(needed) == sorted(sizes):
            return model
    raise UserError(
        f"{path}: its {len(sizes)} tensors are not those of a {config.model_type} model with "
        f"{config.num_hidden_layers} layers of width {config.hidden_size}; give a folder with safetensors"
    )


def _config(path: Path, fields: Mapping[str, Any], reader: "GGUFReader") -> "PreTrainedConfig":
    """The configuration that transformers makes of the file, and what it leaves out."""
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(path.parent, gguf_file=path.name)
        vars(config).pop("_model_name_or_path", None)
        if config.model_type == "gpt2":
            config.n_positions = fields["gpt2.context_length"]
            config.n_inner = fields["gpt2.feed_forward_length"]
        if f"{config.model_type}.attention.key_length" in fields:
            config.head_dim = fields[f"{config.model_type}.attention.key_length"]
        factors = next((tensor.data for tensor in reader.tensors if tensor.name == ROPE_FACTORS), None)
        if factors is not None:
            config.rope_parameters = _llama3_rope(config, factors)
    except Exception as error:  # fields that are missing or of another type
        raise UserError(f"{path}: its configuration cannot be read: {first_line(error)}") from None
    return config


def _llama3_rope(config: "PreTrainedConfig", factors: np.ndarray) -> dict[str, Any]:
    """The settings of Llama 3's rotary frequencies with these factors.

    Raises:
        ValueError: no settings of Llama 3 give these factors.
    """
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    plain = config.rope_parameters
    config.rope_parameters = plain | LLAMA3_ROPE | {"rope_type": "llama3", "factor": float(factors.max())}
    frequencies = ROPE_INIT_FUNCTIONS["llama3"](config, device="cpu")[0].numpy()
    unscaled = plain["rope_theta"] ** -(np.arange(len(factors)) / len(factors))
    if not np.allclose(unscaled / frequencies, factors, rtol=1e-3):
        raise ValueError(f"{ROPE_FACTORS} has factors other than Llama 3's")
    return dict(config.rope_parameters)

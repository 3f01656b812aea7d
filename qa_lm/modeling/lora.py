"""LoRA (arXiv:2106.09685) by peft: small trained matrices next to the frozen matrices of a pretrained model.

The adapted model has the same class, body and head as before, so everything that runs on a model runs on it.
"""

import json
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from qa_lm.errors import UserError, first_line

if TYPE_CHECKING:
    from peft import PeftModel

SETTINGS = "adapter_config.json"
"""The settings of an adapter, as peft writes them."""
INSTALL = "finetune=lora: needs the package peft: pip install 'qa_lm[lora]'"


@dataclass(frozen=True)
class LoraSettings:
    """An adapter as plain values."""

    rank: int
    """Rank of each pair of matrices."""
    alpha: float
    """The product of the pair is multiplied by alpha / rank."""
    dropout: float
    """Dropout probability of the input of each pair."""
    dora: bool
    """Whether magnitude and direction are trained apart (DoRA, arXiv:2402.09353)."""
    target_modules: str | tuple[str, ...]
    """Names of the linear layers to adapt, or `all-linear` for all but the head."""


def check_peft() -> None:
    """Check that peft is installed.

    Raises:
        UserError: says how to install it.
    """
    if find_spec("peft") is None:
        raise UserError(INSTALL, "finetune.method")


def add_lora(model: PreTrainedModel, settings: LoraSettings) -> "PeftModel":
    """Add trained matrices to a model, in place, and freeze all others.

    Args:
        model: the pretrained model.
        settings: the adapter.

    Returns:
        peft's view of the same model, which saves and merges the adapter.

    Raises:
        UserError: peft is missing, or refuses the settings; the message names the layers of the model.
    """
    check_peft()
    from peft import LoraConfig, get_peft_model

    targets = settings.target_modules
    try:
        config = LoraConfig(
            r=settings.rank,
            lora_alpha=settings.alpha,  # type: ignore[arg-type]  # peft divides it by the rank
            lora_dropout=settings.dropout,
            use_dora=settings.dora,
            target_modules=targets if isinstance(targets, str) else list(targets),
            task_type="CAUSAL_LM",
        )
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated")  # peft still reads it
            return get_peft_model(model, config)
    except (ValueError, TypeError, KeyError) as error:
        named = targets if isinstance(targets, str) else list(targets)
        layers = ", ".join(sorted(linear_layers(model)))
        raise UserError(
            f"finetune.target_modules={named}: {first_line(error)}; linear layers of this model: {layers}",
            "finetune.target_modules",
        ) from None


def linear_layers(model: nn.Module) -> set[str]:
    """Last parts of the names of all linear layers."""
    found = {
        name.rpartition(".")[2] for name, module in model.named_modules() if isinstance(module, nn.Linear | Conv1D)
    }
    return found - {"base_layer", "default"}


def trained_state(model: nn.Module) -> dict[str, Tensor]:
    """The state of a model without its frozen parameters: what training changes."""
    return without_frozen(model, model.state_dict())


def without_frozen(model: nn.Module, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state of a model without its frozen parameters."""
    frozen = {name for name, parameter in model.named_parameters(remove_duplicate=False) if not parameter.requires_grad}
    return {name: value for name, value in state.items() if name not in frozen}


def refuse_adapter(state: Mapping[str, Any]) -> None:
    """Refuse the state of an adapter where the state of a whole model is needed.

    Raises:
        UserError: says what to load instead.
    """
    if any(".lora_" in name for name in state):
        raise UserError(
            "this checkpoint holds a LoRA adapter without its model: load model/ or adapter/ of the finished run"
        )


def merged(adapter: "PeftModel") -> PreTrainedModel:
    """Add the adapter to the weights of the model in float32, in place, and return the plain model."""
    adapter.float()
    with torch.no_grad():
        plain: PreTrainedModel = adapter.merge_and_unload()
    plain.__dict__.pop("peft_config", None)
    return plain.requires_grad_(True)


def save_adapter(adapter: "PeftModel", folder: Path, base_name: str, trimmed: bool = False) -> None:
    """Write the adapter as peft, vLLM and llama.cpp load it: adapter_config.json and adapter_model.safetensors.

    Args:
        adapter: the adapted model.
        folder: the folder to write.
        base_name: what `adapter_config.json` names as the model that the adapter belongs to.
        trimmed: whether the vocabulary of the adapted model is a part of that model's. The adapter fits both.
    """
    for config in adapter.peft_config.values():
        config.base_model_name_or_path = base_name
    with warnings.catch_warnings():
        # Of a base that is a GGUF file: its vocabulary is not changed.
        warnings.filterwarnings("ignore", "Could not find a config file in")
        adapter.save_pretrained(
            str(folder), safe_serialization=True, save_embedding_layers=False if trimmed else "auto"
        )
    (folder / "README.md").unlink(missing_ok=True)  # an empty form


def save_settings(adapter: "PeftModel", base: Path, folder: Path) -> None:
    """Write the settings of an adapter without its weights, as `load_merged` reads them.

    Args:
        adapter: the adapted model.
        base: folder of the model without the adapter.
        folder: the folder to write.
    """
    for config in adapter.peft_config.values():
        config.base_model_name_or_path = str(base.resolve())
        config.save_pretrained(str(folder))


def base_of(folder: Path) -> Path | None:
    """The folder of the model that an adapter belongs to; None if the folder holds no settings of an adapter."""
    path = folder / SETTINGS
    if not path.is_file():
        return None
    return Path(json.loads(path.read_text(encoding="utf-8"))["base_model_name_or_path"])


def load_merged(model: PreTrainedModel, folder: Path, weights: dict[str, Tensor]) -> PreTrainedModel:
    """Add an adapter to the model that it belongs to, in place, and return the plain model.

    Args:
        model: the model without the adapter.
        folder: what `save_settings` wrote.
        weights: the trained parameters, by their names in the adapted model.

    Raises:
        UserError: peft is missing, or the weights belong to another adapter.
    """
    check_peft()
    from peft import LoraConfig, get_peft_model

    adapter = get_peft_model(model, LoraConfig.from_pretrained(str(folder)))
    if weights.keys() != trained_state(model).keys():
        raise UserError(f"{folder}: the weights in the checkpoint belong to another adapter")
    model.load_state_dict(weights, strict=False)
    return merged(adapter)

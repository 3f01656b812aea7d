"""Start from a pretrained model: find it, complete the settings from it, load it, decide what is trained."""

import json
import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from transformers import AutoConfig, PreTrainedModel

from qa_lm.config.enums import FinetuneMethod
from qa_lm.config.schema import FinetuneConfig, TokenizerConfig, TrainConfig
from qa_lm.data.cache import cache_folder
from qa_lm.data.chat.rendering import has_chat_template
from qa_lm.data.prepare import PreparedData, cache_is_off
from qa_lm.data.pretrained.origin import base_origin
from qa_lm.data.pretrained.place import Base, find_base
from qa_lm.errors import UserError, first_line
from qa_lm.inference.answerer import check_vocabulary, load_causal_lm
from qa_lm.modeling.causal_lm import check_logits, check_packing
from qa_lm.modeling.config_arguments import DROPOUT_NAMES
from qa_lm.modeling.lora import LoraSettings, check_peft
from qa_lm.training.finetune.trimmed import trim_model

FULL_UP_TO = 200_000_000
"""Maximum number of parameters that are all trained, unless `finetune.method` says otherwise: such a model needs no
adapter to be merged, and the optimizer's state fits into memory."""
SIZES = {"hidden_size": "hidden_size", "layers": "num_hidden_layers", "heads": "num_attention_heads"}
"""Settings of a model and what transformers calls them."""


@dataclass(frozen=True)
class PretrainedStart:
    """A pretrained model and how it will be trained."""

    base: Base
    parameters: int
    method: FinetuneMethod
    reason: str
    """Why this method, as text for the user."""
    sha256: str
    trim: int | None = None
    """The setting `tokenizer.trim`."""

    @property
    def tokenizer(self) -> TokenizerConfig:
        """Settings of the tokenizer that belongs to the model."""
        return TokenizerConfig(kind="folder", path=str(self.base.folder), trim=self.trim)

    @property
    def has_chat_template(self) -> bool:
        """Whether the model has a chat template of its own."""
        return has_chat_template(self.base.folder)

    @property
    def facts(self) -> dict[str, str]:
        """sha256 of the model, and its name on the hub and licence if it names them, as in environment.json."""
        return {"base_sha256": self.sha256} | base_origin(self.base)


def find_start(config: TrainConfig) -> PretrainedStart | None:
    """Find the pretrained model of the settings; None if the model is trained from scratch.

    Raises:
        UserError: see `find_base`; or peft is missing.
    """
    if config.model.path is None:
        return None
    cache = config.data.cache
    root = cache_folder() if cache is None or cache_is_off(config.data) else Path(cache).expanduser()
    base = find_base(config.model.path, config.model.revision, root)
    parameters = _parameters(base.folder)
    method, reason = _method(config.finetune, parameters)
    if method is FinetuneMethod.lora:
        check_peft()
    return PretrainedStart(base, parameters, method, reason, base.sha256(), config.tokenizer.trim)


def _parameters(folder: Path) -> int:
    """Number of weights in the files of a model, which are not read."""
    count = 0
    for path in sorted(folder.glob("*.safetensors")):
        try:
            with safe_open(path, "pt") as file:
                count += sum(math.prod(file.get_slice(name).get_shape()) for name in file.keys())  # noqa: SIM118
        except (SafetensorError, OSError) as error:
            raise UserError(f"{path}: is damaged: {first_line(error)}", "model.path") from None
    return count


def _method(finetune: FinetuneConfig, parameters: int) -> tuple[FinetuneMethod, str]:
    if finetune.method is not None:
        return finetune.method, "as set"
    if parameters <= FULL_UP_TO:
        return FinetuneMethod.full, f"the default up to {FULL_UP_TO / 1e6:.0f} million parameters"
    return FinetuneMethod.lora, f"the default above {FULL_UP_TO / 1e6:.0f} million parameters"


def with_start(config: TrainConfig, start: PretrainedStart) -> TrainConfig:
    """Complete the settings from a pretrained model: architecture, sizes, context, tokenizer, method.

    Raises:
        UserError: a setting contradicts the model.
    """
    own = _own_config(start.base.folder)
    context = getattr(own, "max_position_embeddings", None)
    if not isinstance(context, int):
        raise UserError(f"model.path={start.base.name}: its config has no max_position_embeddings", "model.path")
    sizes: dict[str, Any] = {name: getattr(own, theirs, None) for name, theirs in SIZES.items()}
    for name, value in (sizes | {"architecture": own.model_type}).items():
        given = getattr(config.model, name)
        if given is not None and given != value:
            raise UserError(f"model.{name}={given}: the pretrained model has {value}; leave it out", f"model.{name}")
    if config.model.context is not None and config.model.context > context:
        raise UserError(f"model.context={config.model.context}: the pretrained model has {context}", "model.context")
    model = replace(config.model, architecture=own.model_type, context=config.model.context or context, **sizes)
    finetune = replace(config.finetune, method=start.method)
    return replace(config, model=model, finetune=finetune)


def _own_config(folder: Path) -> Any:
    try:
        return AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # errors of many libraries
        raise UserError(
            f"{folder}: transformers cannot read its config.json: {first_line(error)}", "model.path"
        ) from None


def load_start(start: PretrainedStart, config: TrainConfig, prepared: PreparedData) -> PreTrainedModel:
    """Load the pretrained model, with the vocabulary of the run, ready for training.

    Raises:
        UserError: its files are damaged, it lacks embeddings of its tokenizer, or it does not keep packed pairs apart.
    """
    folder = start.base.folder
    dtype = torch.bfloat16 if str(config.trainer.get("precision")) == "bf16-true" else torch.float32
    raw = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    dropout = {name: config.model.dropout for name in DROPOUT_NAMES if name in raw}
    model = load_causal_lm(folder, dtype, **dropout)
    check_vocabulary(folder, model, prepared.tokenizer)
    if prepared.trim:
        trim_model(model, prepared)
    check_logits(model, f"model.path={start.base.name}")
    if config.data.packing:
        check_packing(model, f"model.path={start.base.name}")
    return model.train()


def lora_settings(finetune: FinetuneConfig) -> LoraSettings:
    """The settings of an adapter as plain values."""
    targets = finetune.target_modules
    return LoraSettings(
        rank=finetune.rank,
        alpha=finetune.alpha,
        dropout=finetune.dropout,
        dora=finetune.dora,
        target_modules=targets if isinstance(targets, str) else tuple(targets),
    )

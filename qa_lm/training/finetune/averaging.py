"""The weights of the finished model: an average of the trained and the pretrained ones (WiSE-FT, arXiv:2109.01903)."""

import math
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from transformers import PreTrainedModel

from qa_lm.config.schema import FinetuneConfig
from qa_lm.data.prepare import PreparedData
from qa_lm.evaluation.before.teacher_forcing import force
from qa_lm.modeling.causal_lm import packs_exactly
from qa_lm.training.finetune.trimmed import load_base

SHARES = (1.0, 0.8, 0.6, 0.5)
"""Shares of the trained weights that are tried where the settings leave the share open."""
PAIRS = 256
"""Maximum number of held-out pairs that choose a share."""
LORA_OUTPUTS = (".lora_B.", ".lora_embedding_B.")
"""Parts of the names of the matrices by which an adapter is scaled."""


@dataclass(frozen=True)
class Average:
    """The share of the trained weights in the finished model, and why."""

    share: float
    right: dict[float, int]
    """Number of held-out pairs that are answered exactly with each share that was tried; empty if the share was set."""
    pairs: int = 0
    """Number of held-out pairs that were asked."""

    def __str__(self) -> str:
        """A line for the user."""
        tried = ", ".join(f"{share:g}: {right:,}" for share, right in self.right.items())
        return (
            f"average with the pretrained weights: {self.share:g} of the trained ones "
            f"(of {self.pairs:,} held-out pairs answered by share: {tried})"
        )


class Averaged:
    """A trained model, whose weights can be set to averages with the pretrained ones.

    Args:
        model: the trained model, in float32. With LoRA only the adapter is averaged: nothing else has changed.
        pretrained: the pretrained parameters by name; None with LoRA.
    """

    def __init__(self, model: PreTrainedModel, pretrained: dict[str, Tensor] | None) -> None:
        parameters = dict(model.named_parameters())
        if pretrained is None:
            parameters = {name: each for name, each in parameters.items() if any(p in name for p in LORA_OUTPUTS)}
        self.model, self.parameters, self.pretrained = model, parameters, pretrained
        self.trained = {name: parameter.detach().clone() for name, parameter in parameters.items()}

    @torch.no_grad()
    def set(self, share: float) -> None:
        """Set the weights to this share of the trained and the rest of the pretrained ones."""
        for name, parameter in self.parameters.items():
            trained = self.trained[name]
            start = torch.zeros_like(trained) if self.pretrained is None else self.pretrained[name].to(trained)
            parameter.copy_(torch.lerp(start, trained, share))


def average(
    model: PreTrainedModel, base: Path, finetune: FinetuneConfig, lora: bool, prepared: PreparedData
) -> Average:
    """Average a trained model with the pretrained one, in place.

    Args:
        model: the trained model, in float32 and eval mode.
        base: folder of the pretrained model.
        finetune: the settings. Where `average` is open, the share is chosen by which most held-out pairs are answered
            exactly and, of equals, by the loss of their answers. Without held-out pairs and with DoRA, whose effect is
            not linear, the trained weights stay.
        lora: whether an adapter was trained.
        prepared: the pairs.
    """
    held_out = prepared.split.validation
    held_out = held_out[:: math.ceil(len(held_out) / PAIRS) or 1]
    is_open = finetune.average is None and len(held_out) > 0 and not finetune.dora
    if not is_open and finetune.average in (None, 1):
        return Average(1.0, {})
    averaged = Averaged(model, None if lora else load_base(base, prepared).state_dict())
    if finetune.average is not None:
        averaged.set(finetune.average)
        return Average(finetune.average, {})
    examples, packed = prepared.examples.examples(held_out), packs_exactly(model)
    scores = {}
    for share in SHARES:
        averaged.set(share)
        forced = force(model, examples, packed)
        right = sum(found.greedy == each.answer_ids for found, each in zip(forced, examples, strict=True))
        scores[share] = (right, -sum(found.loss for found in forced))
    best = max(SHARES, key=scores.__getitem__)
    averaged.set(best)
    return Average(best, {share: right for share, (right, _) in scores.items()}, len(examples))

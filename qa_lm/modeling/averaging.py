"""Average trained with pretrained weights (WiSE-FT, arXiv:2109.01903), which keeps more of what the model knew."""

import torch
from torch import Tensor, nn


@torch.no_grad()
def average_with(model: nn.Module, pretrained: dict[str, Tensor], share: float) -> None:
    """Replace each parameter by the average of itself and the pretrained one, in place.

    Args:
        model: the trained model.
        pretrained: the pretrained parameters by name.
        share: share of the trained parameters, from 0 to 1.
    """
    for name, parameter in model.named_parameters():
        parameter.copy_(torch.lerp(pretrained[name].to(parameter), parameter, share))


@torch.no_grad()
def scale_adapter(model: nn.Module, share: float) -> None:
    """Multiply what a LoRA adapter adds by this share, in place: the same average for an adapter."""
    for name, parameter in model.named_parameters():
        if ".lora_B." in name or ".lora_embedding_B." in name:
            parameter.mul_(share)

"""Gradient clipping that also tells whether the gradients are finite."""

from collections.abc import Iterable

import torch
from torch import Tensor
from torch.nn import Parameter


def clip(parameters: Iterable[Parameter], most: float | None, algorithm: str | None) -> Tensor:
    """Clip the gradients; take them all away if one is not finite, so that the optimizer's step changes nothing.

    Args:
        parameters: what has gradients.
        most: the largest norm of all gradients together, or the largest value of each; None or 0 for any.
        algorithm: `value`, or else the norm.

    Returns:
        Norm of all gradients before clipping, a scalar; not finite if one of them is not.
    """
    trained = [parameter for parameter in parameters if parameter.grad is not None]
    gradients = [parameter.grad for parameter in trained if parameter.grad is not None]
    norm = torch.nn.utils.get_total_norm(gradients)
    if not torch.isfinite(norm):
        for parameter in trained:
            parameter.grad = None
    elif most and algorithm == "value":
        torch.nn.utils.clip_grad_value_(trained, most)
    elif most:
        torch.nn.utils.clip_grads_with_norm_(trained, most, norm)
    return norm

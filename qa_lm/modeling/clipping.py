"""Gradient clipping that also checks that the gradients are finite."""

from collections.abc import Iterable

import torch
from torch import Tensor
from torch.nn import Parameter


def clip(parameters: Iterable[Parameter], limit: float | None, algorithm: str | None) -> Tensor:
    """Clip the gradients; if one is not finite, remove all of them, so that the optimizer step has no effect.

    Args:
        parameters: parameters whose gradients are clipped.
        limit: maximum norm of all gradients together, or maximum absolute value of each; None or 0 for no limit.
        algorithm: `value` clips by value, anything else by norm.

    Returns:
        Norm of all gradients before clipping, a scalar; not finite if a gradient is not finite.
    """
    trained = [parameter for parameter in parameters if parameter.grad is not None]
    gradients = [parameter.grad for parameter in trained if parameter.grad is not None]
    norm = torch.nn.utils.get_total_norm(gradients)
    if not torch.isfinite(norm):
        for parameter in trained:
            parameter.grad = None
    elif limit and algorithm == "value":
        torch.nn.utils.clip_grad_value_(trained, limit)
    elif limit:
        torch.nn.utils.clip_grads_with_norm_(trained, limit, norm)
    return norm

"""Gradients of an optimizer step: accumulation weighted by tokens, and clipping that checks that they are finite."""

from collections.abc import Iterable

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.nn import Parameter


class AccumulationWindow:
    """The micro-batches of one optimizer step.

    Micro-batch i has the loss sum L_i and the weight w_i over all P processes; a window has at most k micro-batches.

        required gradient:      sum_i grad L_i / sum_i w_i
        Lightning computes:     sum_i grad loss_i / (k P)
        with loss_i =           L_i k P / w_1        this gives  sum_i grad L_i / w_1
        which is multiplied by  w_1 / sum_i w_i      before the optimizer step.

    The first weight is known at the first backward pass, the sum of all weights only at the last one.
    """

    def __init__(self) -> None:
        self.first_weight = self.weight = torch.zeros(())
        self.micro_batches = 0

    def add(self, weight: Tensor, first: bool) -> None:
        """Add a micro-batch.

        Args:
            weight: weight of the micro-batch over all processes.
            first: whether it is the first micro-batch of the window.
        """
        if first:
            self.first_weight, self.weight, self.micro_batches = weight, torch.zeros_like(weight), 0
        self.weight = self.weight + weight
        self.micro_batches += 1

    def loss(self, loss: Tensor, micro_batches: int, processes: int) -> Tensor:
        """The value that `training_step` returns for a micro-batch with this sum of losses."""
        return loss * (micro_batches * processes / self.first_weight)

    def scale(self, parameters: Iterable[Parameter]) -> None:
        """Scale the gradients from the first micro-batch's weight to the window's."""
        if self.micro_batches == 1:
            return
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        torch._foreach_mul_(gradients, self.first_weight / self.weight)


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
    if isinstance(norm, DTensor):
        norm = norm.full_tensor()
    if not torch.isfinite(norm):
        for parameter in trained:
            parameter.grad = None
    elif limit and algorithm == "value":
        torch.nn.utils.clip_grad_value_(trained, limit)
    elif limit:
        torch.nn.utils.clip_grads_with_norm_(trained, limit, norm)
    return norm

"""Gradient accumulation that weights micro-batches and processes by their number of tokens."""

from collections.abc import Iterable

import torch
from torch import Tensor
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

    def add(self, weight: Tensor, first: bool) -> None:
        """Add a micro-batch.

        Args:
            weight: weight of the micro-batch over all processes.
            first: whether it is the first micro-batch of the window.
        """
        if first:
            self.first_weight, self.weight = weight, torch.zeros_like(weight)
        self.weight = self.weight + weight

    def loss(self, loss: Tensor, micro_batches: int, processes: int) -> Tensor:
        """The value that `training_step` returns for a micro-batch with this sum of losses."""
        return loss * (micro_batches * processes / self.first_weight)

    def scale(self, parameters: Iterable[Parameter]) -> None:
        """Scale the gradients from the first micro-batch's weight to the window's."""
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        torch._foreach_mul_(gradients, self.first_weight / self.weight)

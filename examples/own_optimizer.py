"""An optimizer of your own: Lion (arXiv:2302.06675).

From Python: `python examples/own_optimizer.py`. On the command line, in the folder of this file:
`train.py trust=own_optimizer optimizer._target_=own_optimizer.Lion optimizer.lr=3e-4`.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch.optim import Optimizer
from transformers import PreTrainedModel

import qa_lm


class Lion(Optimizer):
    """Steps of one size, in the direction of the sign of a running mean of the gradient."""

    def __init__(
        self,
        params: Any,
        lr: float,
        betas: tuple[float, float] = (0.9, 0.99),
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Lightning gives a closure that computes the loss and its gradients: call it first."""
        loss = None
        if closure:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            beta1, beta2 = group["betas"]
            for weight in group["params"]:
                if weight.grad is None:
                    continue
                mean = self.state[weight].setdefault("mean", torch.zeros_like(weight))
                weight.mul_(1 - group["lr"] * group["weight_decay"])
                weight.sub_(mean.lerp(weight.grad, 1 - beta1).sign_(), alpha=group["lr"])
                mean.lerp_(weight.grad, 1 - beta2)
        return loss


def lion(model: PreTrainedModel) -> Optimizer:
    """Matrices decay; norms and biases do not."""
    weights = list(model.parameters())
    matrices, vectors = [w for w in weights if w.ndim > 1], [w for w in weights if w.ndim < 2]
    return Lion([{"params": matrices, "weight_decay": 0.1}, {"params": vectors}], lr=3e-4)


if __name__ == "__main__":
    run = qa_lm.train(qa_lm.compose("model=tiny", "tokenizer=bpe", "trainer.max_epochs=20"), optimizer=lion)
    print(run.metrics["recall"])

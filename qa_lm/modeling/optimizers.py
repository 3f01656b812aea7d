"""AdamW, and Muon for the hidden matrices with AdamW for the rest.

- Only matrices decay, unless asked: a decayed LayerNorm weight or bias is drawn to 0 for no reason.
- `Muon` is one optimizer, not two, because Lightning steps and schedules one; its first group are the hidden matrices.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import Parameter
from torch.optim import Optimizer
from transformers import PreTrainedModel

from qa_lm.errors import UserError, first_line
from qa_lm.modeling.causal_lm import embeddings

POLAR_EXPRESS = ((8.0934, -23.6204, 17.4462), (3.6366, -2.7219, 0.5365), (2.6613, -1.9772, 0.4526))
"""Coefficients of three odd quintic polynomials, each the best for the interval that the one before leaves
(arXiv:2505.16932): together they take singular values from 0.01 to 1 of the Frobenius norm to 0.73 to 1.27. Against
five steps of `torch.optim.Muon`'s one polynomial: docs/log.md, "Muon's step"."""
SAFETY = 1.02
"""The matrix is scaled to a spectral norm of at most 1 / SAFETY: above 1, rounded, the polynomials diverge."""
Polynomials = tuple[tuple[float, float, float], ...]
KINDS = ("adamw", "muon")
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class OptimizerSettings:
    """An optimizer as plain values; call it with a model to get the optimizer."""

    lr: float
    """Highest learning rate."""
    kind: str = "adamw"
    """`adamw`, or `muon` for the hidden matrices with AdamW for the rest."""
    betas: tuple[float, float] = (0.9, 0.999)
    """AdamW: decay of the running means of the gradient and of its square."""
    eps: float = 1e-8
    """AdamW: added to the denominator."""
    weight_decay: float = 0.01
    """Decoupled weight decay of matrices per step, times the learning rate."""
    decay_vectors: bool = False
    """AdamW: whether norms and biases decay too."""
    momentum: float = 0.95
    """Muon: decay of the running mean of the gradient."""
    dtype: str = "float32"
    """Muon: what its matrices are multiplied in, `float32` or `bfloat16`."""

    def __post_init__(self) -> None:
        for name, value, choices in (("kind", self.kind, KINDS), ("dtype", self.dtype, tuple(DTYPES))):
            if value not in choices:
                raise UserError(f"optimizer: {name}={value!r} is unknown; choose {' or '.join(choices)}")

    def __call__(self, model: PreTrainedModel) -> Optimizer:
        """The optimizer of this model."""
        beta1, beta2 = self.betas
        lr, betas, eps, decay = self.lr, (beta1, beta2), self.eps, self.weight_decay
        if self.kind == "adamw":
            return adamw(model, lr, betas, eps, decay, self.decay_vectors)
        return muon(model, embeddings(model), lr, betas, eps, decay, self.momentum, DTYPES[self.dtype])


@dataclass(frozen=True)
class OptimizerOfClass:
    """An optimizer class with its arguments; call it with a model to get the optimizer of all its parameters."""

    found: type[Optimizer]
    arguments: dict[str, Any]

    def __call__(self, model: PreTrainedModel) -> Optimizer:
        """The optimizer of this model.

        Raises:
            UserError: the class refuses an argument's value.
        """
        try:
            return self.found(model.parameters(), **self.arguments)
        except Exception as error:  # of other people's constructors, anything
            raise UserError(f"optimizer: {self.found.__name__} cannot be built: {first_line(error)}") from error


def optimizer_name(make: Callable[[PreTrainedModel], Optimizer]) -> str:
    """The name, for people, of what makes an optimizer."""
    if isinstance(make, OptimizerSettings):
        return make.kind
    return make.found.__name__ if isinstance(make, OptimizerOfClass) else getattr(make, "__name__", "an own optimizer")


def adamw(
    model: nn.Module,
    lr: float,
    betas: tuple[float, float],
    eps: float,
    weight_decay: float,
    decay_vectors: bool = False,
) -> torch.optim.AdamW:
    """Torch's AdamW (arXiv:1711.05101) in its fused form, one pass over memory per parameter.

    Measured on 2 cores for GPT-2 small: docs/log.md, "One step of the tutorial".

    Args:
        model: what is trained.
        lr, betas, eps, weight_decay: as torch's.
        decay_vectors: norms and biases decay too, as in torch's AdamW of all parameters.
    """
    matrices, vectors = _by_shape(model.parameters())
    groups = _not_empty(
        [{"params": matrices}, {"params": vectors, "weight_decay": weight_decay if decay_vectors else 0.0}]
    )
    return torch.optim.AdamW(groups, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay, fused=True)


def muon(
    model: nn.Module,
    embeddings: Iterable[nn.Module],
    lr: float,
    betas: tuple[float, float],
    eps: float,
    weight_decay: float,
    momentum: float,
    dtype: torch.dtype,
) -> "Muon":
    """Muon for the hidden matrices of a model, AdamW for its embeddings, head, norms and biases.

    Args:
        model: what is trained.
        embeddings: its modules whose matrices are indexed by token or position: embeddings and head.
        lr: learning rate of both: Muon's updates are scaled to the size of AdamW's (arXiv:2502.16982).
        betas: of AdamW.
        eps: of AdamW.
        weight_decay: of every matrix.
        momentum: of Muon.
        dtype: what Muon's matrices are multiplied in; bfloat16 is exact enough.
    """
    indexed = {id(parameter) for module in embeddings for parameter in module.parameters()}
    parameters = list(model.parameters())
    hidden = [parameter for parameter in parameters if parameter.ndim == 2 and id(parameter) not in indexed]
    taken = {id(parameter) for parameter in hidden}
    matrices, vectors = _by_shape(parameter for parameter in parameters if id(parameter) not in taken)
    return Muon(hidden, matrices, vectors, lr, betas, eps, weight_decay, momentum, dtype)


class Muon(torch.optim.AdamW):
    """Momentum whose update is orthogonalised, matrix by matrix (Keller Jordan's Muon; arXiv:2502.16982 for the scale).

    With `torch.optim.Muon`'s polynomial the update is that of `torch.optim.Muon(adjust_lr_fn="match_rms_adamw")`. Here
    better polynomials need fewer steps, and matrices of one shape are multiplied together (docs/log.md, "Muon's step").

    Args:
        hidden: matrices that Muon updates.
        matrices: further parameters that decay, for AdamW.
        vectors: those that do not.
        lr, betas, eps, weight_decay, momentum, dtype: as in `muon`.
        polynomials: coefficients of each step of the orthogonalisation.
    """

    def __init__(
        self,
        hidden: list[Parameter],
        matrices: list[Parameter],
        vectors: list[Parameter],
        lr: float,
        betas: tuple[float, float],
        eps: float,
        weight_decay: float,
        momentum: float,
        dtype: torch.dtype,
        polynomials: Polynomials = POLAR_EXPRESS,
    ) -> None:
        groups = [{"params": hidden}, *_not_empty([{"params": matrices}, {"params": vectors, "weight_decay": 0.0}])]
        super().__init__(groups, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay, fused=True)
        self.param_groups[0]["momentum"] = momentum
        self.dtype, self.polynomials = dtype, polynomials

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One update of every parameter that has a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        groups = self.param_groups
        self._step_hidden(groups[0])
        # AdamW's own step sees its groups alone.
        self.param_groups = groups[1:]
        try:
            super().step()
        finally:
            self.param_groups = groups
        return loss

    def _step_hidden(self, group: dict[str, Any]) -> None:
        by_shape: dict[torch.Size, list[Tensor]] = {}
        for parameter in group["params"]:
            if parameter.grad is not None:
                by_shape.setdefault(parameter.shape, []).append(parameter)
        lr, momentum = group["lr"], group["momentum"]
        for shape, parameters in by_shape.items():
            gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
            buffers = [self._momentum_buffer(parameter) for parameter in parameters]
            torch._foreach_lerp_(buffers, gradients, 1 - momentum)
            updates = torch.stack(torch._foreach_lerp(gradients, buffers, momentum))  # Nesterov's
            directions = orthogonalised(updates, self.dtype, self.polynomials)
            torch._foreach_mul_(parameters, 1 - lr * group["weight_decay"])
            scale = 0.2 * math.sqrt(max(shape))
            torch._foreach_add_(parameters, directions.to(updates.dtype).unbind(), alpha=-lr * scale)

    def _momentum_buffer(self, parameter: Tensor) -> Tensor:
        state = self.state[parameter]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(parameter)
            state["step"] = torch.zeros(())  # which AdamW looks for in every state that it loads
        return state["momentum_buffer"]


def orthogonalised(matrices: Tensor, dtype: torch.dtype, polynomials: Polynomials = POLAR_EXPRESS) -> Tensor:
    """Each of (matrices, rows, columns) with its singular values brought near 1, by odd polynomials of the matrix."""
    tall = matrices.shape[1] > matrices.shape[2]
    wide = (matrices.mT if tall else matrices).to(dtype).contiguous()
    wide = wide / (wide.norm(dim=(1, 2), keepdim=True) * SAFETY).clamp(min=1e-7)
    for a, b, c in polynomials:
        gram = torch.bmm(wide, wide.mT)
        wide = torch.baddbmm(wide, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), wide, beta=a)
    return wide.mT if tall else wide


def _by_shape(parameters: Iterable[Parameter]) -> tuple[list[Parameter], list[Parameter]]:
    """Matrices, and what has fewer dimensions."""
    matrices: list[Parameter] = []
    vectors: list[Parameter] = []
    for parameter in parameters:
        (matrices if parameter.ndim >= 2 else vectors).append(parameter)
    return matrices, vectors


def _not_empty(groups: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [group for group in groups if group["params"]]

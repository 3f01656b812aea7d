"""AdamW, and Muon for the hidden matrices with AdamW for the rest.

- By default only matrices decay: weight decay would pull norms and biases towards 0 without a benefit.
- `Muon` is a single optimizer, because Lightning steps and schedules one; its first parameter group contains the hidden
  matrices.
"""

import math
from collections.abc import Callable, Iterable, Iterator
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
"""Coefficients of three odd quintic polynomials, each optimal for the interval that the previous one leaves
(arXiv:2505.16932). Together they map singular values from 0.01 to 1 times the Frobenius norm to 0.73 to 1.27. For a
comparison with five steps of `torch.optim.Muon`'s polynomial see docs/log.md, "Muon's step"."""
SAFETY = 1.02
"""The matrix is scaled to a spectral norm of at most 1 / SAFETY, because rounding above 1 makes the polynomials
diverge."""
BATCH_BYTES = 4 << 20
"""Maximum float32 bytes of the matrices of equal shape that a CPU orthogonalises at once, at least one matrix. They
stay in its cache, and their copies take little memory (docs/log.md, "Muon in small batches")."""
Polynomials = tuple[tuple[float, float, float], ...]
KINDS = ("adamw", "muon")
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class OptimizerSettings:
    """An optimizer as plain values; call it with a model to build the optimizer."""

    lr: float
    """Peak learning rate."""
    kind: str = "adamw"
    """`adamw`, or `muon` for the hidden matrices with AdamW for the rest."""
    betas: tuple[float, float] = (0.9, 0.999)
    """AdamW: decay of the running means of the gradient and its square."""
    eps: float = 1e-8
    """AdamW: added to the denominator for numerical stability."""
    weight_decay: float = 0.01
    """Decoupled weight decay of matrices, multiplied by the learning rate in each step."""
    decay_vectors: bool = False
    """AdamW: whether norms and biases decay too."""
    momentum: float = 0.95
    """Muon: decay of the running mean of the gradient."""
    dtype: str = "float32"
    """Muon: dtype of its matrix products, `float32` or `bfloat16`."""

    def __post_init__(self) -> None:
        for name, value, choices in (("kind", self.kind, KINDS), ("dtype", self.dtype, tuple(DTYPES))):
            if value not in choices:
                raise UserError(f"optimizer: {name}={value!r} is unknown; choose {' or '.join(choices)}")

    def __call__(self, model: PreTrainedModel) -> Optimizer:
        """Build the optimizer of a model."""
        beta1, beta2 = self.betas
        lr, betas, eps, decay = self.lr, (beta1, beta2), self.eps, self.weight_decay
        if self.kind == "adamw":
            return adamw(model, lr, betas, eps, decay, self.decay_vectors)
        return muon(model, embeddings(model), lr, betas, eps, decay, self.momentum, DTYPES[self.dtype])


@dataclass(frozen=True)
class OptimizerOfClass:
    """An optimizer class with its arguments; call it with a model to build the optimizer of all its parameters."""

    optimizer_class: type[Optimizer]
    arguments: dict[str, Any]

    def __call__(self, model: PreTrainedModel) -> Optimizer:
        """Build the optimizer of a model.

        Raises:
            UserError: the class refuses an argument.
        """
        try:
            return self.optimizer_class(trained_parameters(model), **self.arguments)
        except Exception as error:  # third-party constructors can raise anything
            raise UserError(
                f"optimizer: {self.optimizer_class.__name__} cannot be built: {first_line(error)}"
            ) from error


def trained_parameters(model: nn.Module) -> list[Parameter]:
    """The parameters that are not frozen."""
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


def optimizer_name(factory: Callable[[PreTrainedModel], Optimizer]) -> str:
    """A readable name of an optimizer."""
    if isinstance(factory, OptimizerSettings):
        return factory.kind
    if isinstance(factory, OptimizerOfClass):
        return factory.optimizer_class.__name__
    return getattr(factory, "__name__", "a custom optimizer")


def adamw(
    model: nn.Module,
    lr: float,
    betas: tuple[float, float],
    eps: float,
    weight_decay: float,
    decay_vectors: bool = False,
) -> torch.optim.AdamW:
    """Build torch's AdamW (arXiv:1711.05101) in its fused form, which passes over memory once per parameter.

    Measurements on 2 cores for GPT-2 small: docs/log.md, "One step of the tutorial".

    Args:
        model: the model to train.
        lr, betas, eps, weight_decay: as in `torch.optim.AdamW`.
        decay_vectors: whether norms and biases decay too, as in `torch.optim.AdamW(model.parameters())`.
    """
    matrices, vectors = _by_shape(trained_parameters(model))
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
    """Build Muon for the hidden matrices of a model, with AdamW for its embeddings, head, norms and biases.

    Args:
        model: the model to train.
        embeddings: modules whose matrices are indexed by token or position: embeddings and head.
        lr: learning rate of both; Muon's updates are scaled to the size of AdamW's (arXiv:2502.16982).
        betas: betas of AdamW.
        eps: eps of AdamW.
        weight_decay: weight decay of every matrix.
        momentum: momentum of Muon.
        dtype: dtype of Muon's matrix products; bfloat16 is accurate enough.
    """
    indexed = {id(parameter) for module in embeddings for parameter in module.parameters()}
    parameters = trained_parameters(model)
    hidden = [parameter for parameter in parameters if parameter.ndim == 2 and id(parameter) not in indexed]
    hidden_ids = {id(parameter) for parameter in hidden}
    matrices, vectors = _by_shape(parameter for parameter in parameters if id(parameter) not in hidden_ids)
    return Muon(hidden, matrices, vectors, lr, betas, eps, weight_decay, momentum, dtype)


class Muon(torch.optim.AdamW):
    """Momentum with orthogonalised updates of matrices (Keller Jordan's Muon; scale of arXiv:2502.16982), plus AdamW.

    With `torch.optim.Muon`'s polynomial the update equals that of `torch.optim.Muon(adjust_lr_fn="match_rms_adamw")`.
    The polynomials used here need fewer steps, and matrices of equal shape are multiplied in batches (docs/log.md,
    "Muon's step").

    Args:
        hidden: matrices that Muon updates.
        matrices: parameters that AdamW updates with weight decay.
        vectors: parameters that AdamW updates without weight decay.
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
        """Update every parameter that has a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        groups = self.param_groups
        self._step_hidden(groups[0])
        # AdamW's step must see only its own groups.
        self.param_groups = groups[1:]
        try:
            super().step()
        finally:
            self.param_groups = groups
        return loss

    def _step_hidden(self, group: dict[str, Any]) -> None:
        lr, momentum = group["lr"], group["momentum"]
        for parameters in _batches(parameter for parameter in group["params"] if parameter.grad is not None):
            gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
            buffers = [self._momentum_buffer(parameter) for parameter in parameters]
            torch._foreach_lerp_(buffers, gradients, 1 - momentum)
            updates = torch.stack(torch._foreach_lerp(gradients, buffers, momentum))  # Nesterov's
            directions = orthogonalise(updates, self.dtype, self.polynomials)
            torch._foreach_mul_(parameters, 1 - lr * group["weight_decay"])
            scale = 0.2 * math.sqrt(max(parameters[0].shape))
            torch._foreach_add_(parameters, directions.to(updates.dtype).unbind(), alpha=-lr * scale)

    def _momentum_buffer(self, parameter: Tensor) -> Tensor:
        state = self.state[parameter]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(parameter)
            state["step"] = torch.zeros(())  # AdamW requires it in every state that it loads
        return state["momentum_buffer"]


def orthogonalise(matrices: Tensor, dtype: torch.dtype, polynomials: Polynomials = POLAR_EXPRESS) -> Tensor:
    """Map the singular values of each matrix close to 1 by odd matrix polynomials, (matrices, rows, columns)."""
    tall = matrices.shape[1] > matrices.shape[2]
    wide = (matrices.mT if tall else matrices).to(dtype).contiguous()
    wide = wide / (wide.norm(dim=(1, 2), keepdim=True) * SAFETY).clamp(min=1e-7)
    for a, b, c in polynomials:
        gram = torch.bmm(wide, wide.mT)
        wide = torch.baddbmm(wide, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), wide, beta=a)
    return wide.mT if tall else wide


def _batches(matrices: Iterable[Tensor]) -> Iterator[list[Tensor]]:
    """Matrices of equal shape: on a CPU at most `BATCH_BYTES` at once, elsewhere all of them."""
    by_shape: dict[torch.Size, list[Tensor]] = {}
    for matrix in matrices:
        by_shape.setdefault(matrix.shape, []).append(matrix)
    for shape, equal in by_shape.items():
        on_cpu = equal[0].device.type == "cpu"
        count = max(1, BATCH_BYTES // (4 * shape.numel())) if on_cpu else len(equal)
        for begin in range(0, len(equal), count):
            yield equal[begin : begin + count]


def _by_shape(parameters: Iterable[Parameter]) -> tuple[list[Parameter], list[Parameter]]:
    """Split parameters into matrices and those with fewer dimensions."""
    matrices: list[Parameter] = []
    vectors: list[Parameter] = []
    for parameter in parameters:
        (matrices if parameter.ndim >= 2 else vectors).append(parameter)
    return matrices, vectors


def _not_empty(groups: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [group for group in groups if group["params"]]

"""Learning rate schedules: warm-up, then constant, linear, cosine or warm-up-stable-decay."""

import math
from dataclasses import dataclass

from qa_lm.errors import UserError

KINDS = ("constant", "linear", "cosine", "wsd")


@dataclass(frozen=True)
class Schedule:
    """The learning rate factor of each step, as a callable for `LambdaLR`."""

    kind: str
    """`constant`; `linear` and `cosine` decay to `final` at the last step; `wsd` is constant, then linear
    (arXiv:2404.06395)."""
    steps: int
    """Total number of optimizer steps; afterwards the factor stays at `final`."""
    warmup: int = 0
    """Number of warm-up steps, in which the factor rises from 1 / warmup to 1."""
    final: float = 0.0
    """Factor at the end of the decay."""
    decay: float = 0.2
    """For `wsd`: share of the steps after warm-up in which the factor decays, at the end."""

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise UserError(f"schedule: kind={self.kind!r} is unknown; choose one of {', '.join(KINDS)}")

    def __call__(self, step: int) -> float:
        """The factor of a step; steps count from 0."""
        if step < self.warmup:
            return (step + 1) / self.warmup
        falling = 1.0 if self.kind != "wsd" else self.decay
        after_warmup = max(1, self.steps - self.warmup)
        # Progress of the decay: 0 while the factor is 1, and 1 from the last step on.
        done = min(1.0, max(0.0, 1 - (self.steps - step) / (falling * after_warmup))) if falling else 0.0
        if self.kind == "constant":
            return 1.0
        if self.kind == "cosine":
            done = (1 - math.cos(math.pi * done)) / 2
        return 1 - (1 - self.final) * done

"""What every rule needs: random numbers that are the same everywhere, and the choice of a rule by its weight."""

from collections.abc import Callable, Mapping, Sequence
from hashlib import blake2b
from typing import TypeVar

T = TypeVar("T")
_64_BITS = (1 << 64) - 1


class Generator:
    """SplitMix64 random numbers: the same in every process and every version of Python.

    `random.Random` promises this only for `random()`, and seeding it takes longer than a rewritten question should.
    """

    __slots__ = ("_state",)

    def __init__(self, state: int) -> None:
        self._state = state

    @classmethod
    def of(cls, *values: object) -> "Generator":
        """Seed a generator with a hash of the values' texts."""
        text = "\0".join(map(str, values))
        return cls(int.from_bytes(blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big"))

    def _next(self) -> int:
        self._state = state = (self._state + 0x9E3779B97F4A7C15) & _64_BITS
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & _64_BITS
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & _64_BITS
        return state ^ (state >> 31)

    def below(self, count: int) -> int:
        """Draw an integer from 0 to `count - 1`."""
        return self._next() % count

    def chance(self, probability: float) -> bool:
        """Return True with this probability."""
        return (self._next() >> 11) * 2.0**-53 < probability

    def choice(self, values: Sequence[T]) -> T:
        """Draw one of the values."""
        return values[self._next() % len(values)]

    def weighted(self, weights: Mapping[T, int]) -> T:
        """Draw a key with a probability proportional to its weight."""
        point = self._next() % sum(weights.values())
        for value, weight in weights.items():
            point -= weight
            if point < 0:
                return value
        raise AssertionError("weights are positive")


Rule = Callable[[str, Generator], str | None]
"""Rewrite a question; None where the rule does not apply."""


def apply_one(rules: Mapping[Rule, int], question: str, generator: Generator) -> tuple[Rule, str] | None:
    """Draw rules by weight until one changes the question.

    Returns:
        The rule and the changed question; None if no rule changes it.
    """
    left = dict(rules)
    while left:
        rule = generator.weighted(left)
        result = rule(question, generator)
        if result is not None and result != question:
            return rule, result
        del left[rule]
    return None

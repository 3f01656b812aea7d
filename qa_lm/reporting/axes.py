"""Axes of the sweep's charts: where a value stands, and which round numbers are written beside it."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

from qa_lm.reporting.run.charts import Tick

LETTER = 6.6
"""Width of a letter in the charts' units, for text of 12 of them."""
WIDE = 30.0
"""The largest value over the smallest from which on an axis is logarithmic."""


@dataclass(frozen=True)
class Axis:
    """From values to the page."""

    low: float
    high: float
    begin: float
    end: float
    log: bool = False

    def place(self, value: float) -> float:
        """Where it stands; values beyond the ends stand at them."""
        if self.log:
            share = math.log(max(value, self.low) / self.low) / math.log(self.high / self.low)
        else:
            share = (value - self.low) / (self.high - self.low)
        return round(self.begin + min(1.0, max(0.0, share)) * (self.end - self.begin), 1)

    def ticks(self, shares: bool = False) -> list[Tick]:
        """About five round numbers; shares as percentages."""
        return [Tick(self.place(value), _written(value, step, shares)) for value, step in self._round()]

    def _round(self) -> list[tuple[float, float]]:
        """Round numbers within the axis, with the distance to the next one."""
        if self.log:
            powers = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
            factors = (1, 2, 5) if self.high / self.low < 200 else (1,)
            found = [factor * 10.0**power for power in powers for factor in factors]
            return [(value, value) for value in found if self.low * 0.999 <= value <= self.high * 1.001]
        rough = (self.high - self.low) / 5
        power = 10.0 ** math.floor(math.log10(rough))
        step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * 0.999)
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        return [(number * step, step) for number in range(first, last + 1)]


def value_axis(values: Sequence[float], begin: float, end: float, limits: tuple[float | None, float | None]) -> Axis:
    """An axis that shows all of these, of which there is at least one, with a little room.

    Args:
        values: to be shown.
        begin: where the smallest stands.
        end: where the largest stands.
        limits: what no value can pass, such as 0 and 1 for shares.
    """
    low, high = min(values), max(values)
    if low > 0 and high / low > WIDE and limits[1] is None:
        return Axis(low / 1.1, high * 1.1, begin, end, log=True)
    room = (high - low) * 0.08 or abs(high) * 0.1 or 1.0
    least, most = low - room, high + room
    if limits[0] is not None:
        least = max(least, limits[0])
    if limits[1] is not None:
        most = min(most, limits[1])
    return Axis(least, most, begin, end) if least < most else Axis(low - 1, high + 1, begin, end)


def number_axis(numbers: Sequence[float], begin: float, end: float) -> Axis:
    """An axis for the levels of a knob: logarithmic where they span a ratio of eight."""
    low, high = min(numbers), max(numbers)
    if low == high:
        return Axis(low - 1, high + 1, begin, end)
    return Axis(low, high, begin, end, log=low > 0 and high / low >= 8)


def named_ticks(places: Sequence[float], names: Sequence[str], letters: int | None = None) -> list[Tick]:
    """Names at their places, none over another: cut, or left out, where there is no room.

    Args:
        places: where each stands, rising.
        names: of each.
        letters: the most of a name; None for what fits between the places.
    """
    if letters is None:
        room = min((after - before for before, after in itertools.pairwise(places)), default=200.0)
        letters = max(4, int(room / LETTER) - 1)
    found: list[Tick] = []
    free = -math.inf
    for place, name in zip(places, names, strict=True):
        words = cut(name, letters)
        half = len(words) * LETTER / 2 + 3
        if place - half >= free:
            found.append(Tick(place, words))
            free = place + half
    return found


def cut(text: str, letters: int) -> str:
    """At most so many letters; of a path its end, which tells it from others."""
    if len(text) <= letters:
        return text
    return "…" + text[1 - letters :] if "/" in text else text[: letters - 1] + "…"


def _written(value: float, step: float, shares: bool) -> str:
    if shares:
        return f"{value:.{max(0, -math.floor(math.log10(step) + 2 + 1e-9))}%}"
    return f"{round(value, 12):,.6g}" if 1e-3 <= abs(value) < 1e6 or abs(value) < 1e-12 else f"{value:.2g}"

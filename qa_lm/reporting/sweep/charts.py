"""A chart per knob: every run a faint dot, every setting its mean and 95% interval.

Here is where lines, dots and whiskers stand; templates/sweep_chart.svg.j2 draws them.
"""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field

from qa_lm.reporting.axes import Axis, named_ticks, number_axis, value_axis
from qa_lm.reporting.run.charts import Dot, Tick
from qa_lm.reporting.sweep.findings import Findings, Group
from qa_lm.reporting.sweep.knobs import Knob
from qa_lm.reporting.sweep.outcomes import Outcome
from qa_lm.reporting.sweep.verdict import estimated

WIDTH, HEIGHT = 360, 240
LEFT, RIGHT, TOP, BOTTOM = 54, 346, 14, 202
STYLES = 6
"""Colours with marks of their own; style 0 is grey."""


@dataclass(frozen=True)
class Drawn:
    """A line with its marks."""

    name: str
    style: int
    path: str
    dots: list[Dot] = field(default_factory=list)
    whiskers: list[tuple[float, float, float]] = field(default_factory=list)
    """x, and the two ends."""


@dataclass(frozen=True)
class Panel:
    """A chart with axes."""

    key: str
    title: str
    x_label: str
    x_ticks: list[Tick]
    y_ticks: list[Tick]
    lines: list[Drawn]
    """The first is drawn last, above the others."""
    faint: list[Drawn]
    """Single runs, behind the lines."""
    ring: tuple[float, float] | None = None
    """Around the best."""
    legend: list[Drawn] = field(default_factory=list)
    width: int = WIDTH
    height: int = HEIGHT
    box: tuple[int, int, int, int] = (LEFT, RIGHT, TOP, BOTTOM)


def knob_charts(findings: Findings) -> list[Panel]:
    """One for each knob that has two levels with a value."""
    panels = [_knob_chart(findings, index) for index in range(len(findings.design.knobs))]
    return [panel for panel in panels if panel]


def limits(outcome: Outcome) -> tuple[float | None, float | None]:
    """What no value of it can pass."""
    return (0.0, 1.0) if outcome.kind == "share" else (None, None) if outcome.kind == "number" else (0.0, None)


def path_of(points: Sequence[tuple[float, float]]) -> str:
    """A line through the points, for an SVG path; empty for fewer than two."""
    return "M" + "L".join(f"{x},{y}" for x, y in points) if len(points) > 1 else ""


def titled(outcome: Outcome) -> str:
    """Its name with its unit, as the title of a chart."""
    title = outcome.title[:1].upper() + outcome.title[1:]
    return (
        f"{title}, s" if outcome.kind == "seconds" else f"{title}, nats per token" if "loss" in outcome.title else title
    )


def _knob_chart(findings: Findings, index: int) -> Panel | None:
    knob, measured = findings.design.knobs[index], findings.measured
    levels = [level for level in knob.levels if any(group.place[index] == level for group in measured)]
    if len(levels) < 2:
        return None
    outcome = findings.objective.outcome
    y = value_axis(_shown_values(measured), BOTTOM, TOP, limits(outcome))
    x = _x_places(knob, levels)
    other = _other(findings, index)
    lines = (
        _mean_line(findings, index, levels, x, y)
        if other is None
        else [
            _line(
                findings, index, [each for each in measured if each.place[1 - index : 2 - index] == chosen], x, y, style
            )
            for style, chosen in enumerate(other)
        ]
    )
    lines = [line for line in lines if line.dots]
    best = measured[0]
    of_best = next((dot for line in lines for dot in line.dots if dot.words == _words(findings, best)), None)
    return Panel(
        key=f"knob-{index + 1}",
        title=titled(outcome),
        x_label=knob.key,
        x_ticks=named_ticks([x[level] for level in levels], levels),
        y_ticks=y.ticks(outcome.kind == "share"),
        lines=lines,
        faint=_runs(findings, index, x, y, other),
        ring=(of_best.x, of_best.y) if of_best and findings.ranked else None,
        legend=lines if len(lines) > 1 else [],
    )


def _other(findings: Findings, index: int) -> list[tuple[str, ...]] | None:
    """What tells the lines of a chart apart: levels of the one other knob; None with more knobs, or too many levels."""
    knobs = findings.design.knobs
    if len(knobs) == 1:
        return [()]
    if len(knobs) > 2 or len(knobs[1 - index].levels) > STYLES:
        return None
    return [(level,) for level in knobs[1 - index].levels]


def _x_places(knob: Knob, levels: list[str]) -> dict[str, float]:
    """Numbers by their size, names at equal distances; both with room at the sides."""
    if knob.numbers:
        numbers = [number for number, level in zip(knob.numbers, knob.levels, strict=True) if level in levels]
        axis = number_axis(numbers, LEFT + 24, RIGHT - 24)
        return {level: axis.place(number) for level, number in zip(levels, numbers, strict=True)}
    slot = (RIGHT - LEFT) / len(levels)
    return {level: round(LEFT + slot * (place + 0.5), 1) for place, level in enumerate(levels)}


def _aside(findings: Findings, index: int, style: int) -> float:
    """Lines stand a little beside one another, so that whiskers do not cover each other."""
    others = _other(findings, index) or []
    step = 5 if findings.design.knobs[index].numbers else 9
    return (style - (len(others) - 1) / 2) * step


def _line(findings: Findings, index: int, groups: list[Group], x: dict[str, float], y: Axis, style: int) -> Drawn:
    """The settings of one line, in the order of the knob's levels."""
    order = findings.design.knobs[index].levels
    groups = sorted(groups, key=lambda group: order.index(group.place[index]))
    dots, whiskers = [], []
    for group in groups:
        found = group.estimate
        assert found
        at = round(x[group.place[index]] + _aside(findings, index, style), 1)
        dots.append(Dot(at, y.place(found.mean), _words(findings, group)))
        if found.low is not None and found.high is not None:
            whiskers.append((at, y.place(found.low), y.place(found.high)))
    numeric = findings.design.knobs[index].numbers is not None
    others = [knob.name for place, knob in enumerate(findings.design.knobs) if place != index]
    name = f"{others[0]} {groups[0].place[1 - index]}" if others and groups else ""
    return Drawn(name, style + 1, path_of([(dot.x, dot.y) for dot in dots]) if numeric else "", dots, whiskers)


def _mean_line(findings: Findings, index: int, levels: list[str], x: dict[str, float], y: Axis) -> list[Drawn]:
    """The mean over all other knobs."""
    outcome, dots = findings.objective.outcome, []
    for level in levels:
        means = [group.estimate.mean for group in findings.measured if group.place[index] == level and group.estimate]
        mean = statistics.fmean(means)
        dots.append(Dot(x[level], y.place(mean), f"{level}: {outcome.shown(mean)}, mean of {len(means)} settings"))
    path = path_of([(dot.x, dot.y) for dot in dots]) if findings.design.knobs[index].numbers else ""
    return [Drawn("mean over all else", 1, path, dots)]


def _runs(
    findings: Findings, index: int, x: dict[str, float], y: Axis, other: list[tuple[str, ...]] | None
) -> list[Drawn]:
    """A dot for each seed of each setting, in its line's colour."""
    drawn = []
    for group in findings.measured:
        rest = group.place[:index] + group.place[index + 1 :]
        style = 0 if other is None else other.index(rest) + 1
        aside = 0.0 if other is None else _aside(findings, index, style - 1)
        at = round(x[group.place[index]] + aside, 1)
        if other is None or len(group.values) > 1:
            words = findings.design.words(group.place)
            shown = findings.objective.outcome.shown
            dots = [
                Dot(at, y.place(value), f"{words}, seed {seed}: {shown(value)}") for seed, value in group.values.items()
            ]
            drawn.append(Drawn("", style, "", dots))
    return drawn


def _shown_values(groups: list[Group]) -> list[float]:
    """Values and ends of intervals; an interval of few seeds, far wider than all values, is drawn cut."""
    values = [value for group in groups for value in group.values.values()]
    room = (max(values) - min(values)) * 0.25
    low, high = min(values) - room, max(values) + room
    ends = [end for group in groups if group.estimate for end in (group.estimate.low, group.estimate.high)]
    return [*values, *(min(high, max(low, end)) for end in ends if end is not None)]


def _words(findings: Findings, group: Group) -> str:
    return f"{findings.design.words(group.place)}: {estimated(findings, group)}"

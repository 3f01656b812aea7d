"""A chart per knob: each run as a faint dot, each setting as its mean with a 95% interval."""

import statistics
from collections.abc import Sequence
from math import nan
from typing import TYPE_CHECKING

from qa_lm.reporting.figures import INK, MARKERS, PAPER, STYLES, Chart, named_ticks, new_axes, percent_axis, style
from qa_lm.reporting.sweep.findings import Findings, Group
from qa_lm.reporting.sweep.knobs import Knob
from qa_lm.reporting.sweep.outcomes import Outcome

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = len(STYLES) - 1
"""Number of lines with a colour and marker of their own. Style 0 is grey."""
WIDE = 30.0
"""A value axis is logarithmic if the largest value divided by the smallest exceeds this."""
OCTAVES = 8.0
"""The same for the levels of a knob, inclusive."""


def knob_charts(findings: Findings) -> list[Chart]:
    """A chart for each knob with at least two measured levels."""
    charts = []
    for index, knob in enumerate(findings.design.knobs):
        levels = [level for level in knob.levels if any(group.place[index] == level for group in findings.measured)]
        if len(levels) > 1:
            title = f"{chart_title(findings.objective.outcome)}, by {knob.key}"
            lines = _lines(findings, index)
            legend = tuple((number, name) for number, (name, _) in enumerate(lines, 1)) if len(lines) > 1 else ()
            charts.append(Chart(f"knob-{index + 1}", title, title, _figure(findings, index, levels, lines), legend))
    return charts


def chart_title(outcome: Outcome) -> str:
    """The outcome's name and unit, as the title of a chart."""
    title = outcome.title[:1].upper() + outcome.title[1:]
    return (
        f"{title}, s" if outcome.kind == "seconds" else f"{title}, nats per token" if "loss" in outcome.title else title
    )


def value_axis(axes: "Axes", values: Sequence[float], outcome: Outcome) -> None:
    """Scale the vertical axis to show all values (at least one), with some margin."""
    from matplotlib.ticker import StrMethodFormatter

    low, high = min(values), max(values)
    if low > 0 and high / low > WIDE and outcome.kind != "share":
        axes.set_yscale("log")
        axes.set_ylim(low / 1.1, high * 1.1)
        axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        return
    room = (high - low) * 0.08 or abs(high) * 0.1 or 1.0
    minimum = 0.0 if outcome.kind != "number" and low >= 0 else float("-inf")
    maximum = 1.0 if outcome.kind == "share" and high <= 1 else float("inf")
    axes.set_ylim(max(low - room, minimum), min(high + room, maximum))
    if outcome.kind == "share":
        percent_axis(axes.yaxis)


Line = tuple[str, list[Group]]
"""Name of a line, and its settings."""


def _lines(findings: Findings, index: int) -> list[Line]:
    """A line for each level of the other knob; empty with more than two knobs, or too many levels."""
    knobs = findings.design.knobs
    if len(knobs) == 1:
        return [("", findings.measured)]
    other = knobs[1 - index]
    if len(knobs) > 2 or len(other.levels) > COLOURS:
        return []
    by_level = [
        (level, [each for each in findings.measured if each.place[1 - index] == level]) for level in other.levels
    ]
    return [(f"{other.name} {level}", groups) for level, groups in by_level if groups]


@style()
def _figure(findings: Findings, index: int, levels: list[str], lines: list[Line]) -> "Figure":
    knob = findings.design.knobs[index]
    figure, axes = new_axes(knob.key)
    x = _places(axes, knob, levels)
    value_axis(axes, _shown_values(findings.measured), findings.objective.outcome)
    joined = "-" if knob.numbers else ""
    if not lines:
        _mean_line(axes, findings, index, x, joined)
    for number, (_, groups) in enumerate(lines, 1):
        in_order = sorted(groups, key=lambda group: levels.index(group.place[index]))
        # Lines are shifted sideways so that their intervals do not overlap.
        shift = (number - (len(lines) + 1) / 2) * (5 if knob.numbers else 9)
        _line(axes, findings, [(x[group.place[index]], group) for group in in_order], number, shift, joined)
    named_ticks(axes, [x[level] for level in levels], levels)
    return figure


def _places(axes: "Axes", knob: Knob, levels: list[str]) -> dict[str, float]:
    """Positions on the axis: numbers to scale, names evenly spaced."""
    if not knob.numbers:
        axes.set_xlim(-0.5, len(levels) - 0.5)
        return {level: float(place) for place, level in enumerate(levels)}
    places = {level: number for level, number in zip(knob.levels, knob.numbers, strict=True) if level in levels}
    low, high = min(places.values()), max(places.values())
    if low > 0 and high / low >= OCTAVES:
        axes.set_xscale("log")
        room = (high / low) ** 0.09
        axes.set_xlim(low / room, high * room)
    else:
        room = (high - low) * 0.09
        axes.set_xlim(low - room, high + room)
    return places


def _line(
    axes: "Axes", findings: Findings, settings: list[tuple[float, Group]], number: int, shift: float, joined: str
) -> None:
    """Plot the runs, means and intervals of one line."""
    from matplotlib.transforms import ScaledTranslation

    shifted = axes.transData + ScaledTranslation(shift / 72, 0, axes.figure.dpi_scale_trans)
    color, marker = STYLES[number], MARKERS[number]
    runs = [(x, value) for x, group in settings if len(group.values) > 1 for value in group.values.values()]
    if runs:
        axes.plot(*zip(*runs, strict=True), "o", color=color, alpha=0.45, markersize=4.5, mew=0, transform=shifted)
    means = [(x, group.estimate) for x, group in settings if group.estimate]
    ends = [
        [nan if end is None else abs(end - each.mean) for _, each in means for end in [getattr(each, side)]]
        for side in ("low", "high")
    ]
    axes.errorbar(
        [x for x, _ in means],
        [each.mean for _, each in means],
        ends,
        fmt=f"{marker}{joined}",
        color=color,
        linewidth=2,
        elinewidth=1.4,
        capsize=3,
        markersize=8,
        markeredgecolor=PAPER,
        transform=shifted,
    )
    for x, group in settings:
        if findings.ranked and group is findings.measured[0] and group.estimate:
            axes.plot([x], [group.estimate.mean], "o", markersize=16, mfc="none", mec=INK, mew=1.4, transform=shifted)


def _mean_line(axes: "Axes", findings: Findings, index: int, x: dict[str, float], joined: str) -> None:
    """Plot all runs, and the mean of each level over all other knobs."""
    runs = [(x[group.place[index]], value) for group in findings.measured for value in group.values.values()]
    axes.plot(*zip(*runs, strict=True), "o", color=STYLES[0], alpha=0.6, markersize=4.5, mew=0)
    means = {}
    for level in x:
        level_means = [each.estimate.mean for each in findings.measured if each.place[index] == level and each.estimate]
        means[level] = statistics.fmean(level_means)
    axes.plot(
        [x[level] for level in means], list(means.values()), f"o{joined}",
        color=STYLES[1], linewidth=2, markersize=8, mec=PAPER, mew=1,
    )  # fmt: skip


def _shown_values(groups: list[Group]) -> list[float]:
    """Values and interval ends that the axis shows. Intervals far wider than the values, as with few seeds, are cut."""
    values = [value for group in groups for value in group.values.values()]
    room = (max(values) - min(values)) * 0.25
    low, high = min(values) - room, max(values) + room
    ends = [end for group in groups if group.estimate for end in (group.estimate.low, group.estimate.high)]
    return [*values, *(min(high, max(low, end)) for end in ends if end is not None)]

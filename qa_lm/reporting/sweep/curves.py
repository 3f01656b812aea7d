"""Learning curves over one another: each run a faint line, each setting the mean of its seeds."""

import statistics

from qa_lm.reporting.axes import Axis, value_axis
from qa_lm.reporting.run.board import thinned
from qa_lm.reporting.run.charts import Dot, Tick
from qa_lm.reporting.sweep.charts import BOTTOM, LEFT, RIGHT, STYLES, TOP, Drawn, Panel, limits, path_of
from qa_lm.reporting.sweep.findings import Findings, Group
from qa_lm.reporting.sweep.outcomes import CURVES, Outcome

NAMED_OF_MANY = 3
"""Settings that have a colour where there are more than `STYLES`; the others are grey."""
MOST_POINTS = 80
"""Points of a line; longer ones are thinned."""
SHOWN = (("val_loss", "train_loss"), ("train_recall", "val_exact_match"))
"""Of each, the first that was measured."""

Curve = list[tuple[float, float]]


def learning_curves(findings: Findings) -> list[Panel]:
    """A chart of the loss and one of what is answered exactly, where they were measured."""
    groups = findings.groups or [Group((), findings.sweep.jobs, {}, None)]
    panels = []
    for columns in SHOWN:
        found = (_panel(findings, groups, CURVES[column]) for column in columns)
        panels.append(next((panel for panel in found if panel), None))
    return [panel for panel in panels if panel]


def _panel(findings: Findings, groups: list[Group], column: Outcome) -> Panel | None:
    runs = [[curve for job in group.jobs if (curve := _curve(job.epochs, column.name))] for group in groups]
    points = [point for curves in runs for curve in curves for point in curve]
    if not points:
        return None
    last = max(x for x, _ in points)
    x = Axis(1.0, max(2.0, last), LEFT, RIGHT - 6)
    y = value_axis([value for _, value in points], BOTTOM, TOP, limits(column))
    coloured = len(groups) if len(groups) <= STYLES else NAMED_OF_MANY
    lines: list[Drawn] = []
    faint: list[Drawn] = []
    rest: list[Drawn] = []
    for rank, (group, curves) in enumerate(zip(groups, runs, strict=True)):
        style = rank + 1 if rank < coloured else 0
        if curves and style:
            lines.append(_mean(findings, group, curves, (x, y), style, column))
        if len(curves) > 1 or (curves and not style):
            drawn = [Drawn("", style, _path(curve, x, y)) for curve in curves]
            (faint if style else rest).extend(drawn)
    others = [Drawn(f"the other {len(groups) - coloured}", 0, "")] if rest else []
    return Panel(
        key=f"curve-{column.name}",
        title=column.title,
        x_label="epoch",
        x_ticks=_epoch_ticks(x, last),
        y_ticks=y.ticks(column.kind == "share"),
        lines=lines,
        faint=rest + faint,
        legend=[*lines, *others] if len(lines) + len(others) > 1 else [],
    )


def _curve(epochs: list[dict[str, float | None]], column: str) -> Curve:
    return [(x, y) for row in epochs if (x := row.get("epoch")) is not None and (y := row.get(column)) is not None]


def _mean(
    findings: Findings, group: Group, curves: list[Curve], axes: tuple[Axis, Axis], style: int, column: Outcome
) -> Drawn:
    """Mean over the runs, as far as all of them go: beyond, those that ended early would pull it by their absence."""
    values = [dict(curve) for curve in curves]
    shared = sorted(set(values[0]).intersection(*values[1:]))
    mean = [(epoch, statistics.fmean(each[epoch] for each in values)) for epoch in shared]
    name = findings.design.words(group.place)
    line = Drawn(name, style, _path(mean, *axes))
    if len(mean) > 1 or not mean:
        return line
    words = f"{name}, epoch {mean[0][0]:.0f}: {column.shown(mean[0][1])}"
    return Drawn(name, style, "", [Dot(axes[0].place(mean[0][0]), axes[1].place(mean[0][1]), words)])


def _path(curve: Curve, x: Axis, y: Axis) -> str:
    return path_of([(x.place(epoch), y.place(value)) for epoch, value in thinned(curve, MOST_POINTS)])


def _epoch_ticks(x: Axis, last: float) -> list[Tick]:
    """Whole epochs that there are."""
    ticks = [tick for tick in Axis(0.0, x.high, x.begin, x.end).ticks() if "." not in tick.label]
    numbers = dict.fromkeys([1.0, *(float(tick.label.replace(",", "")) for tick in ticks)])
    return [Tick(x.place(each), f"{each:.0f}") for each in numbers if 1 <= each <= last]

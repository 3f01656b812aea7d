"""Learning curves in one chart: each run as a faint line, each setting as the mean of its seeds."""

import statistics
from typing import TYPE_CHECKING

from qa_lm.reporting.figures import MARKERS, STYLES, Chart, epoch_axis, new_axes, style
from qa_lm.reporting.loss_curve import Curve, by_epoch
from qa_lm.reporting.run.board import thin_out
from qa_lm.reporting.sweep.charts import COLOURS, value_axis
from qa_lm.reporting.sweep.findings import Findings, Group
from qa_lm.reporting.sweep.outcomes import CURVES, Outcome

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NAMED_OF_MANY = 3
"""Number of settings with a colour if there are more settings than colours. The others are grey."""
MAX_POINTS = 80
"""Maximum number of points of a line. Longer lines are thinned out."""
SHOWN = (("val_loss", "train_loss"), ("train_recall", "val_exact_match"))
"""Columns to plot: from each group, the first that was measured."""


def learning_curves(findings: Findings) -> list[Chart]:
    """A chart of the loss and one of the exact match, if measured."""
    groups = findings.groups or [Group((), findings.sweep.jobs, {}, None)]
    charts = []
    for columns in SHOWN:
        candidates = (_chart(findings, groups, CURVES[column]) for column in columns)
        charts.append(next((chart for chart in candidates if chart), None))
    return [chart for chart in charts if chart]


def _chart(findings: Findings, groups: list[Group], column: Outcome) -> Chart | None:
    runs = [[curve for job in group.jobs if (curve := by_epoch(job.epochs, column.name))] for group in groups]
    if not any(runs):
        return None
    coloured = len(groups) if len(groups) <= COLOURS else NAMED_OF_MANY
    names = [
        (rank + 1, findings.design.describe(group.place)) for rank, group in enumerate(groups[:coloured]) if runs[rank]
    ]
    if any(runs[coloured:]):
        names.append((0, f"the other {len(groups) - coloured}"))
    title = f"{column.title}, by epoch"
    legend = tuple(names) if len(names) > 1 else ()
    return Chart(f"curve-{column.name}", title, title, _figure(runs, coloured, column), legend, marked=False)


@style()
def _figure(runs: list[list[Curve]], coloured: int, column: Outcome) -> "Figure":
    """Plot the curves of each setting, with the best setting on top."""
    figure, axes = new_axes("epoch")
    for curves in runs[coloured:]:
        _thin(axes, curves, 0)
    for rank in reversed(range(coloured)):
        if len(runs[rank]) > 1:
            _thin(axes, runs[rank], rank + 1)
    for rank in reversed(range(coloured)):
        if mean := _mean(runs[rank]):
            marker = MARKERS[rank + 1] if len(mean) == 1 else ""
            axes.plot(
                *zip(*thin_out(mean, MAX_POINTS), strict=True), color=STYLES[rank + 1], linewidth=2, marker=marker
            )
    everything = [point for curves in runs for curve in curves for point in curve]
    epoch_axis(axes, 1.0, max(2.0, *(epoch for epoch, _ in everything)))
    value_axis(axes, [value for _, value in everything], column)
    return figure


def _thin(axes: "Axes", curves: list[Curve], number: int) -> None:
    for curve in curves:
        points = zip(*thin_out(curve, MAX_POINTS), strict=True)
        axes.plot(*points, color=STYLES[number], linewidth=1, alpha=0.45)


def _mean(curves: list[Curve]) -> Curve:
    """Mean over the runs, up to the last epoch that all of them reached, so that runs that end early do not bias it."""
    values = [dict(curve) for curve in curves]
    shared = sorted(set(values[0]).intersection(*values[1:])) if values else []
    return [(epoch, statistics.fmean(each[epoch] for each in values)) for epoch in shared]

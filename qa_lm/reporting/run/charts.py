"""The charts of a run's report."""

from typing import TYPE_CHECKING

from qa_lm.reporting.figures import STYLES, Chart, new_axes, percent_axis, style
from qa_lm.reporting.loss_curve import MAX_MARKS, add_legend, by_epoch, draw_by_epoch, loss_figure
from qa_lm.reporting.run.board import coverage_points
from qa_lm.run.board_types import Threshold
from qa_lm.run.reader import RunFiles
from qa_lm.run.run_folder import METRICS_COLUMNS

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def loss_chart(run: RunFiles) -> Chart | None:
    """Train and validation loss by epoch, with the best epoch marked; None if no loss was measured."""
    if not (by_epoch(run.epochs, "train_loss") or by_epoch(run.epochs, "val_loss")):
        return None
    return Chart("loss", "Loss", "Train and validation loss, by epoch", loss_figure(run))


def recall_chart(run: RunFiles) -> Chart | None:
    """Exact match of trained and held-out pairs by epoch; None if it was never measured."""
    if not (by_epoch(run.epochs, "train_recall") or by_epoch(run.epochs, "val_exact_match")):
        return None
    return Chart("recall", "Exact match", "Exact match, by epoch", _recall_figure(run))


def logged_charts(run: RunFiles) -> list[Chart]:
    """One chart for each metric that a callback, loss or model of the user logged."""
    columns = run.epochs[0] if run.epochs else ()
    names = [name for name in columns if name not in METRICS_COLUMNS and by_epoch(run.epochs, name)]
    return [
        Chart(f"logged-{number}", name, f"{name}, by epoch", _logged_figure(run, name))
        for number, name in enumerate(names, start=1)
    ]


def coverage_chart(run: RunFiles) -> Chart | None:
    """Precision by coverage; None if confidence was not measured."""
    points = coverage_points(run.board["confidence"])
    if not points:
        return None
    title = "Precision by coverage, held-out pairs"
    return Chart("coverage", title, title, _coverage_figure(points))


@style()
def _recall_figure(run: RunFiles) -> "Figure":
    figure, axes = new_axes("epoch", "share answered exactly")
    trained, held_out = by_epoch(run.epochs, "train_recall"), by_epoch(run.epochs, "val_exact_match")
    draw_by_epoch(axes, run, {"trained pairs (recall)": trained, "held-out pairs": held_out})
    axes.set_ylim(0, 1)
    percent_axis(axes.yaxis)
    add_legend(figure)
    return figure


@style()
def _logged_figure(run: RunFiles, name: str) -> "Figure":
    figure, axes = new_axes("epoch", "")
    draw_by_epoch(axes, run, {name: by_epoch(run.epochs, name)})
    return figure


@style()
def _coverage_figure(points: list[Threshold]) -> "Figure":
    figure, axes = new_axes("coverage: share of questions answered", "precision")
    coverage, precision = [point["coverage"] for point in points], [point["precision"] for point in points]
    marker = "o" if len(points) <= MAX_MARKS else ""
    axes.plot(coverage, precision, color=STYLES[1], linewidth=2, marker=marker, markersize=6, clip_on=False)
    axes.set_xlim(0, 1)
    axes.set_ylim(0 if min(precision) < 0.5 else 0.5, 1)
    percent_axis(axes.xaxis)
    percent_axis(axes.yaxis)
    return figure

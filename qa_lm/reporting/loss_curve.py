"""Plot train and validation loss by epoch, for the report and as loss_curve.png."""

import bisect
from pathlib import Path
from typing import TYPE_CHECKING

from qa_lm.reporting.figures import INK, MARKERS, SOFT, STYLES, epoch_axis, new_axes, png, style
from qa_lm.run.reader import Epoch, RunFiles, read_run
from qa_lm.run.run_folder import LOSS_CURVE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Curve = list[tuple[float, float]]
"""Epochs with values."""
MAX_MARKS = 40
"""Lines with more points have no markers, which would hide the line."""


def draw_loss_curve(run_folder: Path) -> Path:
    """Draw the loss curve of a run folder, finished or not, and return the path of the PNG.

    Raises:
        UserError: the folder is not a run folder.
    """
    path = run_folder / LOSS_CURVE
    png(loss_figure(read_run(run_folder)), path)
    return path


@style()
def loss_figure(run: RunFiles) -> "Figure":
    """Train and validation loss by epoch, with the best epoch, skipped updates and loss spikes marked."""
    figure, axes = new_axes("epoch", "loss, nats per token")
    draw_by_epoch(
        axes, run, {"train": by_epoch(run.epochs, "train_loss"), "validation": by_epoch(run.epochs, "val_loss")}
    )
    axes.set_ylim(bottom=0)
    _mark_bad_batches(axes, run)
    add_legend(figure)
    return figure


def by_epoch(rows: list[Epoch], column: str) -> Curve:
    """Epochs at which a column of metrics.csv has a value, each with that value."""
    points = [(row.get("epoch"), row.get(column)) for row in rows]
    return [(epoch, value) for epoch, value in points if epoch is not None and value is not None]


def draw_by_epoch(axes: "Axes", run: RunFiles, lines: dict[str, Curve]) -> None:
    """Draw lines over the epochs of a run, and mark the best epoch.

    Args:
        axes: the axes to draw on.
        run: the run.
        lines: points of each line by its name. They may skip epochs.
    """
    for number, (name, points) in enumerate(lines.items(), 1):
        if points:
            axes.plot(
                *zip(*points, strict=True),
                color=STYLES[number],
                linestyle="-" if number == 1 else "--",
                linewidth=2,
                marker=MARKERS[number] if len(points) <= MAX_MARKS else "",
                markersize=5,
                clip_on=False,
                label=name,
            )
    epochs = [epoch for row in run.epochs if (epoch := row.get("epoch")) is not None]
    if epochs:
        epoch_axis(axes, min(epochs), max(epochs))
    best = run.metrics.get("best_epoch")
    if best is not None and best in epochs:
        axes.axvline(best, color=SOFT, linewidth=1, linestyle=":")
        first, last = axes.get_xlim()
        right = best > (first + last) / 2
        axes.annotate(
            f"best epoch: {best:.0f}",
            (best, 1.0),
            xycoords=axes.get_xaxis_transform(),
            xytext=(-4 if right else 4, 0),
            textcoords="offset points",
            ha="right" if right else "left",
            va="bottom",
            color=SOFT,
        )


def add_legend(figure: "Figure") -> None:
    """Add a legend above the axes, where it covers nothing."""
    figure.legend(loc="outside upper left", ncols=2, frameon=False, labelcolor=SOFT, handlelength=2.2)


def _mark_bad_batches(axes: "Axes", run: RunFiles) -> None:
    """Mark skipped updates and loss spikes along the axis, at their position within the epoch."""
    steps = [0.0, *(row["step"] or 0.0 for row in run.epochs)]  # at the end of each epoch
    low = axes.get_xaxis_transform()
    for kind, marker, color, label in (
        ("skipped", "x", INK, "update skipped"),
        ("spike", "^", STYLES[6], "loss spike"),
    ):
        places = [_within_epochs(record["step"], steps) for record in run.bad_batches if record["kind"] == kind]
        if places:
            low_places = [0.03] * len(places)
            axes.plot(places, low_places, marker, color=color, markersize=6, label=label, transform=low, clip_on=False)


def _within_epochs(step: float, steps: list[float]) -> float:
    """Position of a step on the axis of epochs. A step of an unfinished epoch is at the end of the axis."""
    epoch = bisect.bisect_left(steps, step)
    if epoch >= len(steps):
        return float(epoch)
    return epoch - 1 + (step - steps[epoch - 1]) / (steps[epoch] - steps[epoch - 1])

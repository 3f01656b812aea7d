"""loss_curve.png: train and validation loss by epoch, the best epoch marked."""

import bisect
import csv
import json
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from qa_lm.run.atomic import replacing

# Colours that differ in lightness too, for print and for colour-blind readers (Okabe and Ito).
TRAIN, VALIDATION, SPIKE, INK = "#0072B2", "#D55E00", "#CC79A7", "#404040"


def draw_loss_curve(run_folder: Path) -> Path:
    """Draw the curve of a run folder from its metrics.csv; returns the picture's path."""
    with (run_folder / "metrics.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    end = run_folder / "metrics.json"  # which a run that still trains has not
    best_epoch = json.loads(end.read_text(encoding="utf-8"))["best_epoch"] if end.is_file() else None
    figure = Figure(figsize=(5.2, 3.4), layout="constrained")
    axes = figure.add_subplot()
    epochs = [int(row["epoch"]) for row in rows]
    axes.plot(
        epochs,
        [float(row["train_loss"]) for row in rows],
        color=TRAIN,
        marker="o",
        markersize=3.5,
        linewidth=1.6,
        label="train",
    )
    validated = [(int(row["epoch"]), float(row["val_loss"])) for row in rows if row["val_loss"]]
    if validated:
        axes.plot(
            *zip(*validated, strict=True),
            color=VALIDATION,
            marker="s",
            markersize=3.5,
            linewidth=1.6,
            label="validation",
        )
        _mark_best(axes, [point for point in validated if point[0] == best_epoch])
    _mark_bad(axes, run_folder, rows)
    axes.set_xlabel("epoch")
    axes.set_ylabel("cross-entropy loss (nats)")
    axes.set_ylim(bottom=0)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", linewidth=0.5, alpha=0.4)
    axes.legend(frameon=False)
    path = run_folder / "loss_curve.png"
    with replacing(path) as beside:
        figure.savefig(beside, dpi=200, format="png")
    return path


def _mark_bad(axes: Axes, run_folder: Path, rows: list[dict[str, str]]) -> None:
    """Marks along the axis where updates were skipped and where the loss leapt, at their place within the epoch."""
    path = run_folder / "bad_batches.jsonl"
    if not path.is_file():
        return
    records = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    steps = [0, *(int(row["step"]) for row in rows)]  # at the end of each epoch
    low = axes.get_xaxis_transform()
    for kind, marker, color, label in (("skipped", "x", INK, "update skipped"), ("spike", "^", SPIKE, "loss spike")):
        places = [_within_epochs(record["step"], steps) for record in records if record["kind"] == kind]
        if places:
            axes.plot(places, [0.03] * len(places), marker, color=color, markersize=5, label=label, transform=low)


def _within_epochs(step: int, steps: list[int]) -> float:
    """Where on the axis of epochs a step is; one of an epoch that has not ended is at the end of the axis."""
    epoch = bisect.bisect_left(steps, step)
    if epoch >= len(steps):
        return float(epoch)
    return epoch - 1 + (step - steps[epoch - 1]) / (steps[epoch] - steps[epoch - 1])


def _mark_best(axes: Axes, points: list[tuple[int, float]]) -> None:
    for epoch, loss in points:
        axes.plot([epoch], [loss], "o", markersize=11, markerfacecolor="none", markeredgecolor=INK, markeredgewidth=1.2)
        axes.annotate(
            f"best: epoch {epoch}, {loss:.3f}",
            (epoch, loss),
            xytext=(0, 12),
            textcoords="offset points",
            ha="right" if epoch > 1 else "left",
            color=INK,
            fontsize=9,
        )

"""Where the lines, ticks and words of a chart stand; templates/chart.svg.j2 draws them.

SVG by hand and not matplotlib's: its words are real text, its colours follow the reader's light or dark page.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from qa_lm.reporting.run.board import coverage_points
from qa_lm.reporting.run.files import RunFiles
from qa_lm.reporting.wording import decimal, finite, percent

WIDTH, HEIGHT = 360, 226
LEFT, RIGHT, TOP, BOTTOM = 44, 340, 22, 188
MOST_DOTS = 40
"""Longer lines have no dots: they would hide the line."""

Point = tuple[float, float]


@dataclass(frozen=True)
class Series:
    """Values by a name that is also the style of its line."""

    name: str
    style: str
    points: Sequence[tuple[float, float | None]]
    """x and y; None where nothing was measured."""


@dataclass(frozen=True)
class Dot:
    """A point, with what it says when pointed at."""

    x: float
    y: float
    words: str


@dataclass(frozen=True)
class Line:
    """A series on the page."""

    name: str
    style: str
    path: str
    dots: list[Dot]


@dataclass(frozen=True)
class Tick:
    """A number at an axis."""

    at: float
    label: str


@dataclass(frozen=True)
class Chart:
    """All that the template draws."""

    key: str
    title: str
    x_label: str
    lines: list[Line]
    x_ticks: list[Tick]
    y_ticks: list[Tick]
    mark: Tick | None = None
    width: int = WIDTH
    height: int = HEIGHT
    box: tuple[int, int, int, int] = field(default=(LEFT, RIGHT, TOP, BOTTOM))


def loss_chart(run: RunFiles) -> Chart | None:
    """Train and validation loss by epoch, the best epoch marked; None without any."""
    series = [
        Series("train", "first", _column(run, "train_loss")),
        Series("validation", "second", _column(run, "val_loss")),
    ]
    return _by_epoch(run, "loss", "Loss, nats per token", series, shares=False)


def recall_chart(run: RunFiles) -> Chart | None:
    """Exact match by epoch, of trained and of held-out pairs; None if it was never measured."""
    series = [
        Series("trained pairs (recall)", "first", _column(run, "train_recall")),
        Series("held-out pairs", "second", _column(run, "val_exact_match")),
    ]
    return _by_epoch(run, "recall", "Exact match", series, shares=True)


def coverage_chart(run: RunFiles) -> Chart | None:
    """Precision by coverage; None if confidence was not measured."""
    points = coverage_points(run.board)
    if not points:
        return None
    series = Series("precision", "first", [(point["coverage"], point["precision"]) for point in points])
    words = [_coverage_words(point) for point in points]
    lowest = min(point["precision"] for point in points)
    bottom = 0.0 if lowest < 0.5 else 0.5
    return Chart(
        key="coverage",
        title="Precision by coverage, held-out pairs",
        x_label="coverage: share of questions answered",
        lines=[_line(series, (0.0, 1.0), (bottom, 1.0), words)],
        x_ticks=_ticks((0.0, 1.0), LEFT, RIGHT, shares=True),
        y_ticks=_ticks((bottom, 1.0), BOTTOM, TOP, shares=True),
    )


def _coverage_words(point: dict[str, float]) -> str:
    shares = f"{percent(point['coverage'])} answered, {percent(point['precision'])} of them right"
    return f"probability at least {decimal(point['threshold'], 2)}: {shares}"


def _column(run: RunFiles, column: str) -> list[tuple[float, float | None]]:
    rows = [(row.get("epoch"), row.get(column)) for row in run.epochs]
    return [(epoch, value) for epoch, value in rows if epoch is not None]


def _by_epoch(run: RunFiles, key: str, title: str, series: list[Series], shares: bool) -> Chart | None:
    series = [each for each in series if any(value is not None for _, value in each.points)]
    if not series:
        return None
    epochs = [epoch for each in series for epoch, _ in each.points]
    x_range = (min(epochs), max(epochs)) if min(epochs) < max(epochs) else (min(epochs) - 1, max(epochs) + 1)
    greatest = max(value for each in series for _, value in each.points if value is not None)
    y_range = (0.0, 1.0 if shares else greatest * 1.05 or 1.0)
    best = finite(run.metrics.get("best_epoch"))
    lines = []
    for each in series:
        said = [(epoch, percent(value) if shares else decimal(value)) for epoch, value in each.points]
        words = [f"epoch {epoch:.0f}, {each.name}: {value}" for epoch, value in said]
        lines.append(_line(each, x_range, y_range, words))
    x_ticks = _ticks(x_range, LEFT, RIGHT, shares=False, least=1.0)
    return Chart(
        key=key,
        title=title,
        x_label="epoch",
        lines=lines,
        x_ticks=[tick for tick in x_ticks if tick.label in {f"{epoch:.0f}" for epoch in epochs}],
        y_ticks=_ticks(y_range, BOTTOM, TOP, shares),
        mark=Tick(_place(best, x_range, LEFT, RIGHT), f"best: {best:.0f}")
        if best in epochs and best is not None
        else None,
    )


def _line(series: Series, x_range: Point, y_range: Point, words: list[str]) -> Line:
    """The series as a path and its dots, over gaps too: validation need not follow every epoch."""
    dots = [
        Dot(_place(x, x_range, LEFT, RIGHT), _place(y, y_range, BOTTOM, TOP), said)
        for (x, y), said in zip(series.points, words, strict=True)
        if y is not None
    ]
    path = "M" + "L".join(f"{dot.x},{dot.y}" for dot in dots)
    return Line(series.name, series.style, path, dots if len(dots) <= MOST_DOTS else [])


def _place(value: float, limits: Point, begin: int, end: int) -> float:
    low, high = limits
    return round(begin + (value - low) / (high - low) * (end - begin), 1)


def _ticks(limits: Point, begin: int, end: int, shares: bool, least: float = 0.0) -> list[Tick]:
    """About five round numbers within the limits."""
    low, high = limits
    rough = (high - low) / 5
    power = 10.0 ** math.floor(math.log10(rough))
    step = max(least, next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * 0.999))
    count = range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)
    label = (lambda value: f"{value:.0%}") if shares else (lambda value: f"{value:g}")
    return [Tick(_place(number * step, limits, begin, end), label(round(number * step, 10))) for number in count]

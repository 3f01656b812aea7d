"""Heat maps of a sweep: the mean of the objective by two knobs."""

import itertools
import statistics
from dataclasses import dataclass

from qa_lm.reporting.axes import LETTER, named_ticks, value_axis
from qa_lm.reporting.run.charts import Tick
from qa_lm.reporting.sweep.charts import RIGHT, WIDTH, titled
from qa_lm.reporting.sweep.findings import Findings
from qa_lm.reporting.sweep.outcomes import Outcome

MOST_CELLS = 14
"""Levels of a side."""


@dataclass(frozen=True)
class Cell:
    """A cell of a heat map."""

    x: float
    y: float
    depth: float
    """0 for the worst value, 1 for the best."""
    text: str
    words: str
    best: bool


@dataclass(frozen=True)
class HeatMap:
    """Means by two knobs."""

    key: str
    title: str
    x_label: str
    y_label: str
    x_ticks: list[Tick]
    y_ticks: list[Tick]
    cells: list[Cell]
    size: tuple[float, float]
    """Of a cell."""
    width: int
    height: int
    box: tuple[int, int, int, int]


def heat_maps(findings: Findings) -> list[HeatMap]:
    """For each two of at most three knobs, where both have at least two levels with a value and not too many."""
    count = len(findings.design.knobs)
    if not 2 <= count <= 3:
        return []
    maps = [_heat_map(findings, *pair) for pair in itertools.combinations(range(count), 2)]
    return [each for each in maps if each]


def _heat_map(findings: Findings, across: int, down: int) -> HeatMap | None:
    cells: dict[tuple[str, str], list[float]] = {}
    for group in findings.measured:
        assert group.estimate
        cells.setdefault((group.place[across], group.place[down]), []).append(group.estimate.mean)
    knobs, outcome = findings.design.knobs, findings.objective.outcome
    if len(knobs[across].levels) < len(knobs[down].levels):
        across, down = down, across
        cells = {(b, a): values for (a, b), values in cells.items()}
    columns = [level for level in knobs[across].levels if any(level == a for a, _ in cells)]
    rows = [level for level in knobs[down].levels if any(level == b for _, b in cells)]
    if not (len(rows) >= 2 and len(columns) <= MOST_CELLS and len(rows) <= MOST_CELLS):
        return None
    left = 26 + min(74, max(16, 8 * max(map(len, rows))))
    size = (round((RIGHT - left) / len(columns), 2), max(22.0, min(40.0, 180 / len(rows))))
    means = {place: statistics.fmean(values) for place, values in cells.items()}
    bottom = round(6 + size[1] * len(rows))
    x = {level: round(left + size[0] * place, 1) for place, level in enumerate(columns)}
    y = {level: round(6 + size[1] * place, 1) for place, level in enumerate(rows)}
    best = (min if outcome.smaller_is_better else max)(means, key=lambda place: means[place])
    depths = _depths(means, outcome.smaller_is_better)
    named = f"{knobs[across].name}={{}}, {knobs[down].name}={{}}: {{}}"
    return HeatMap(
        key=f"heat-{across + 1}-{down + 1}",
        title=f"{titled(outcome)}, mean",
        x_label=knobs[across].key,
        y_label=knobs[down].key,
        x_ticks=named_ticks([x[level] + size[0] / 2 for level in columns], columns),
        y_ticks=named_ticks([y[level] + size[1] / 2 + 4 for level in rows], rows, letters=10)
        if len(rows) * 2 < MOST_CELLS
        else [Tick(y[level] + size[1] / 2 + 4, level[:10]) for level in rows],
        cells=[
            Cell(
                x[a],
                y[b],
                depths[a, b],
                _in_cell(mean, outcome, size[0]),
                named.format(a, b, outcome.shown(mean)),
                (a, b) == best and findings.ranked,
            )
            for (a, b), mean in means.items()
        ],
        size=size,
        width=WIDTH,
        height=bottom + 38,
        box=(left, RIGHT, 6, bottom),
    )


def _depths(means: dict[tuple[str, str], float], smaller_is_better: bool) -> dict[tuple[str, str], float]:
    """From the worst, 0, to the best, 1."""
    axis = value_axis(list(means.values()), 0, 100, (None, None))
    places = {place: axis.place(mean) for place, mean in means.items()}
    low, high = min(places.values()), max(places.values())
    shares = {place: (at - low) / (high - low) if high > low else 0.5 for place, at in places.items()}
    return {place: round(1 - share if smaller_is_better else share, 3) for place, share in shares.items()}


def _in_cell(value: float, outcome: Outcome, width: float) -> str:
    """The value with as many digits as the cell has room for; nothing where it is too narrow."""
    if outcome.kind == "share":
        written = [outcome.shown(value), f"{value:.0%}"]
    elif outcome.kind == "seconds":
        written = [outcome.shown(value), f"{value:.0f}"]
    else:
        written = [f"{value:.4g}", f"{value:.3g}", f"{value:.2g}"]
    return next((words for words in written if len(words) * LETTER <= width - 4), "")

"""Heat maps of a sweep: the mean of the objective over two knobs."""

import itertools
import math
import statistics
from typing import TYPE_CHECKING

from qa_lm.reporting.figures import (
    INK,
    LETTER,
    PAPER,
    STYLES,
    WIDTH,
    Chart,
    named_ticks,
    new_axes,
    one_line,
    style,
)
from qa_lm.reporting.sweep.charts import WIDE, chart_title
from qa_lm.reporting.sweep.findings import Findings
from qa_lm.reporting.sweep.outcomes import Outcome
from qa_lm.reporting.wording import shorten

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MAX_CELLS = 14
"""Maximum number of levels per axis."""
LETTERS = 10
"""Maximum length of a row's name, in characters."""
ON_BLUE = "#1b1a18"
"""Colour of text on a cell of medium depth, in both light and dark mode."""

Means = dict[tuple[str, str], float]
"""Mean by the levels of the horizontal and the vertical knob."""


def heat_maps(findings: Findings) -> list[Chart]:
    """A map for each pair of knobs, with two or three knobs that each have 2 to `MAX_CELLS` measured levels."""
    count = len(findings.design.knobs)
    if not 2 <= count <= 3:
        return []
    maps = [_heat_map(findings, *pair) for pair in itertools.combinations(range(count), 2)]
    return [each for each in maps if each]


def _heat_map(findings: Findings, across: int, down: int) -> Chart | None:
    knobs = findings.design.knobs
    key = f"heat-{across + 1}-{down + 1}"
    if len(knobs[across].levels) < len(knobs[down].levels):
        across, down = down, across
    cells: dict[tuple[str, str], list[float]] = {}
    for group in findings.measured:
        assert group.estimate
        cells.setdefault((group.place[across], group.place[down]), []).append(group.estimate.mean)
    columns = [level for level in knobs[across].levels if any(level == a for a, _ in cells)]
    rows = [level for level in knobs[down].levels if any(level == b for _, b in cells)]
    if not (2 <= len(rows) <= MAX_CELLS and len(columns) <= MAX_CELLS):
        return None
    means = {place: statistics.fmean(values) for place, values in cells.items()}
    title = f"{chart_title(findings.objective.outcome)}, mean, by {knobs[across].key} and {knobs[down].key}"
    labels = (knobs[across].key, knobs[down].key)
    return Chart(key, title, title, _figure(findings, means, columns, rows, labels))


@style()
def _figure(findings: Findings, means: Means, columns: list[str], rows: list[str], labels: tuple[str, str]) -> "Figure":
    from matplotlib.patches import Rectangle

    outcome = findings.objective.outcome
    figure, axes = new_axes(*labels, height=56 + max(22, min(40, 180 / len(rows))) * len(rows))
    axes.grid(visible=False)
    axes.spines["bottom"].set_visible(False)
    axes.tick_params(length=0)
    room = WIDTH - 40 - LETTER * min(LETTERS, max(map(len, rows)))
    best = (min if outcome.smaller_is_better else max)(means, key=lambda place: means[place])
    for place, depth in _depths(means, outcome.smaller_is_better).items():
        x, y = columns.index(place[0]), rows.index(place[1])
        chosen = place == best and findings.ranked
        axes.add_patch(
            Rectangle((x, y), 1, 1, facecolor=(STYLES[1], 0.06 + 0.94 * depth), edgecolor=PAPER, linewidth=1.5)
        )
        if chosen:
            inside = (0.02, 0.04)
            size = (1 - 2 * inside[0], 1 - 2 * inside[1])
            axes.add_patch(Rectangle((x + inside[0], y + inside[1]), *size, fill=False, edgecolor=INK, linewidth=2))
        axes.text(
            *(x + 0.5, y + 0.5, _in_cell(means[place], outcome, room / len(columns))),
            color=PAPER if depth > 0.78 else ON_BLUE if depth > 0.5 else INK,
            weight="bold" if chosen else "normal",
            ha="center",
            va="center",
        )
    axes.set_xlim(0, len(columns))
    axes.set_ylim(len(rows), 0)
    named_ticks(axes, [place + 0.5 for place in range(len(columns))], columns, room)
    axes.set_yticks([place + 0.5 for place in range(len(rows))], [shorten(one_line(level), LETTERS) for level in rows])
    return figure


def _depths(means: Means, smaller_is_better: bool) -> Means:
    """Colour depth from 0 (worst) to 1 (best); on a log scale if values are far apart."""
    low, high = min(means.values()), max(means.values())
    if low == high:
        return dict.fromkeys(means, 0.5)
    scale = math.log if low > 0 and high / low > WIDE else float
    shares = {place: (scale(mean) - scale(low)) / (scale(high) - scale(low)) for place, mean in means.items()}
    return {place: 1 - share if smaller_is_better else share for place, share in shares.items()}


def _in_cell(value: float, outcome: Outcome, width: float) -> str:
    """Format the value with as many digits as fit into the cell; empty if none do."""
    if outcome.kind == "share":
        formats = [outcome.shown(value), f"{value:.0%}"]
    elif outcome.kind == "seconds":
        formats = [outcome.shown(value), f"{value:.0f}"]
    else:
        formats = [f"{value:.4g}", f"{value:.3g}", f"{value:.2g}"]
    return next((text for text in formats if len(text) * LETTER <= width - 4), "")

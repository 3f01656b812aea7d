"""Charts by matplotlib: as SVG within a page, and as a PNG.

Within a page a chart has no script and no address outside it. Its text stays text, in the page's font, and its colours
are variables of the page's style sheet, so that it follows the page in light and in dark mode.
"""

import contextlib
import io
import itertools
import re
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from qa_lm.reporting.wording import cut, printable
from qa_lm.run.atomic import replacing

if TYPE_CHECKING:  # matplotlib takes a second to import
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

INK, SOFT, RULE, PAPER = "#000000", "#5d5a55", "#dedad2", "#ffffff"
STYLES = ("#a9a49b", "#0b63a5", "#b04600", "#1c7a4a", "#8a3a8f", "#7a6200", "#a8235a")
"""Colours of lines, as they are in a PNG; the first is for what has no colour of its own."""
MARKERS, GLYPHS = "oos^DvP", "●●■▲◆▼✚"
"""The marks of the styles, for matplotlib and for a legend in the page."""
LINE = "━"
OF_THE_PAGE = {INK: "currentColor", SOFT: "var(--soft)", RULE: "var(--rule)", PAPER: "var(--paper)"} | {
    colour: f"var(--s{number})" for number, colour in enumerate(STYLES)
}
WIDTH, HEIGHT = 360.0, 226.0
"""Points, which are pixels of the page."""
TEXT = 12.0
LETTER = 7.4
"""Width of a letter of text, in points, with a little room."""


@dataclass(frozen=True)
class Chart:
    """A figure with its title, and a legend in the page where one is needed."""

    key: str
    """Its name on the page."""
    title: str
    label: str
    """What a screen reader says."""
    figure: "Figure"
    legend: tuple[tuple[int, str], ...] = ()
    """Style and name of each line."""
    marked: bool = True
    """Whether the lines have marks."""

    @property
    def svg(self) -> Markup:
        """The figure as an element of the page."""
        return svg(self.figure, self.key, self.label)

    @property
    def keys(self) -> list[tuple[int, str, str]]:
        """Style, mark and name of each line of the legend."""
        return [(number, GLYPHS[number] if self.marked else LINE, name) for number, name in self.legend]


@contextlib.contextmanager
def style(salt: str = "") -> Iterator[None]:
    """Matplotlib's settings while a figure is built or written; also a decorator.

    Args:
        salt: what the ids in an SVG are made from. Charts of one page need different ones.
    """
    import matplotlib

    settings: dict[Any, Any] = {
        **{"font.family": "DejaVu Sans", "font.size": TEXT, "text.usetex": False},
        "text.parse_math": False,  # a dollar sign in a label is a dollar sign
        **{"svg.fonttype": "none", "svg.hashsalt": salt or "qa_lm"},
    }
    with matplotlib.rc_context(settings), warnings.catch_warnings():
        # The page's own font shows the letters that matplotlib's font lacks.
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        yield


def new_axes(x_label: str, y_label: str = "", height: float = HEIGHT) -> "tuple[Figure, Axes]":
    """A new figure and its axes, with a grid for the values."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH / 72, height / 72), layout="constrained")
    axes = figure.add_subplot()
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(SOFT)
    axes.grid(axis="y", color=RULE)
    axes.set_axisbelow(True)
    axes.tick_params(color=SOFT, labelcolor=SOFT)
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel(one_line(x_label), color=SOFT)
    axes.set_ylabel(one_line(y_label), color=SOFT)
    return figure, axes


def one_line(text: str) -> str:
    """Text from outside, for a chart."""
    return " ".join(printable(text).split())


def percentages(axis: "Axis") -> None:
    """Show the values of an axis, which are shares, as percentages."""
    from matplotlib.ticker import PercentFormatter

    axis.set_major_formatter(PercentFormatter(1.0))


def whole_epochs(axes: "Axes", first: float, last: float) -> None:
    """Let the horizontal axis show epochs."""
    from matplotlib.ticker import MaxNLocator

    axes.set_xlim(first, last) if first < last else axes.set_xlim(first - 1, first + 1)
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))


def named_ticks(axes: "Axes", places: Sequence[float], names: Sequence[str], room: float = WIDTH - 70) -> None:
    """Names below the horizontal axis, none over another: cut, or left out, where there is no room.

    Args:
        axes: with their final limits.
        places: where each name is, rising.
        names: the names.
        room: the width of the axis, in points.
    """
    ends = axes.transData.transform([(place, 1.0) for place in (*axes.get_xlim(), *places)])[:, 0]
    points = [float(end - ends[0]) / float(ends[1] - ends[0]) * room for end in ends[2:]]
    gap = min((after - before for before, after in itertools.pairwise(points)), default=room)
    letters, free = max(6, int(gap / LETTER)), float("-inf")
    shown: list[tuple[float, str]] = []
    for place, point, name in zip(places, points, names, strict=True):
        words = cut(one_line(name), letters)
        if point - len(words) * LETTER / 2 >= free:
            shown.append((place, words))
            free = point + len(words) * LETTER / 2
    axes.set_xticks([place for place, _ in shown], [words for _, words in shown])
    axes.minorticks_off()


def svg(figure: "Figure", key: str, label: str) -> Markup:
    """The figure as an SVG element for a page; the same figure always gives the same text.

    Args:
        figure: drawn in the colours of this module.
        key: its id is `chart-KEY`.
        label: what a screen reader says.
    """
    written = io.StringIO()
    with style(key):
        undated = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(written, format="svg", transparent=True, metadata=undated)
    body = written.getvalue().partition("</defs>")[2]  # what is before is a style sheet for the whole page
    # Tags are between < and >, which text and attributes cannot hold unescaped: no label is changed.
    body = re.sub(r"<[^>]*>", lambda tag: _for_the_page(tag[0]), body)
    width, height = figure.get_size_inches() * 72
    start = Markup('<svg class="chart" id="chart-{}" viewBox="0 0 {:g} {:g}" role="img" aria-label="{}">').format(
        key, width, height, printable(label)
    )
    return start + Markup(re.sub(r"\s*\n\s*", "\n", body))


def _for_the_page(tag: str) -> str:
    """A tag in the page's colours and font, without the ids that nothing refers to."""
    for colour, name in OF_THE_PAGE.items():
        tag = tag.replace(colour, name)
    tag = re.sub(r"; font-family: [^;\"]*", "", tag)
    return re.sub(r'^<g id="[^"]*"', "<g", tag)


def png(figure: "Figure", path: Path) -> None:
    """Write the figure as a picture on white."""
    with style(), replacing(path) as beside:
        figure.savefig(beside, dpi=200, format="png")

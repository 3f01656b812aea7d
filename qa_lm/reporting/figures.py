"""Matplotlib charts, as inline SVG and as PNG.

Inline charts have no scripts and no external references. Their text stays text in the page's font, and their colours
are variables of the page's style sheet, so that they follow its light and dark mode.
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

from qa_lm.reporting.wording import printable, shorten
from qa_lm.run.atomic import replacing

if TYPE_CHECKING:  # matplotlib takes a second to import
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

INK, SOFT, RULE, PAPER = "#000000", "#5d5a55", "#dedad2", "#ffffff"
STYLES = ("#a9a49b", "#0b63a5", "#b04600", "#1c7a4a", "#8a3a8f", "#7a6200", "#a8235a")
"""Line colours, as in a PNG. The first is for lines without a colour of their own."""
MARKERS, GLYPHS = "oos^DvP", "●●■▲◆▼✚"
"""Markers of the styles, for matplotlib and for a legend in the page."""
LINE = "━"
PAGE_COLOURS = {INK: "currentColor", SOFT: "var(--soft)", RULE: "var(--rule)", PAPER: "var(--paper)"} | {
    colour: f"var(--s{number})" for number, colour in enumerate(STYLES)
}
WIDTH, HEIGHT = 360.0, 226.0
"""Size in points, which are pixels on the page."""
TEXT = 12.0
LETTER = 7.4
"""Width of a letter of text, in points, with some margin."""


@dataclass(frozen=True)
class Chart:
    """A figure with its title and, where needed, a legend in the page."""

    key: str
    """Its id on the page."""
    title: str
    label: str
    """Text for screen readers."""
    figure: "Figure"
    legend: tuple[tuple[int, str], ...] = ()
    """Style number and name of each line."""
    marked: bool = True
    """Whether the lines have markers."""

    @property
    def svg(self) -> Markup:
        """The figure as an SVG element."""
        return svg(self.figure, self.key, self.label)

    @property
    def keys(self) -> list[tuple[int, str, str]]:
        """Style number, marker and name of each legend entry."""
        return [(number, GLYPHS[number] if self.marked else LINE, name) for number, name in self.legend]


@contextlib.contextmanager
def style(salt: str = "") -> Iterator[None]:
    """Set matplotlib's parameters while a figure is built or written. Also works as a decorator.

    Args:
        salt: seed of the ids in an SVG. Charts on one page need different ones.
    """
    import matplotlib

    settings: dict[Any, Any] = {
        **{"font.family": "DejaVu Sans", "font.size": TEXT, "text.usetex": False},
        "text.parse_math": False,  # a dollar sign in a label is a dollar sign
        **{"svg.fonttype": "none", "svg.hashsalt": salt or "qa_lm"},
    }
    with matplotlib.rc_context(settings), warnings.catch_warnings():
        # The page's font has the letters that matplotlib's font lacks.
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        yield


def new_axes(x_label: str, y_label: str = "", height: float = HEIGHT) -> "tuple[Figure, Axes]":
    """Create a figure and its axes, with horizontal grid lines."""
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
    """Make untrusted text safe for a chart, on one line."""
    return " ".join(printable(text).split())


def percent_axis(axis: "Axis") -> None:
    """Format the values of an axis, which are fractions, as percentages."""
    from matplotlib.ticker import PercentFormatter

    axis.set_major_formatter(PercentFormatter(1.0))


def epoch_axis(axes: "Axes", first: float, last: float) -> None:
    """Scale the horizontal axis for epochs, with integer ticks."""
    from matplotlib.ticker import MaxNLocator

    axes.set_xlim(first, last) if first < last else axes.set_xlim(first - 1, first + 1)
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))


def named_ticks(axes: "Axes", places: Sequence[float], names: Sequence[str], room: float = WIDTH - 70) -> None:
    """Label the horizontal axis without overlaps: shorten names, or leave them out, if space is short.

    Args:
        axes: axes with their final limits.
        places: position of each name, in ascending order.
        names: the names.
        room: width of the axis, in points.
    """
    ends = axes.transData.transform([(place, 1.0) for place in (*axes.get_xlim(), *places)])[:, 0]
    points = [float(end - ends[0]) / float(ends[1] - ends[0]) * room for end in ends[2:]]
    gap = min((after - before for before, after in itertools.pairwise(points)), default=room)
    letters, free = max(6, int(gap / LETTER)), float("-inf")
    shown: list[tuple[float, str]] = []
    for place, point, name in zip(places, points, names, strict=True):
        text = shorten(one_line(name), letters)
        if point - len(text) * LETTER / 2 >= free:
            shown.append((place, text))
            free = point + len(text) * LETTER / 2
    axes.set_xticks([place for place, _ in shown], [text for _, text in shown])
    axes.minorticks_off()


def svg(figure: "Figure", key: str, label: str) -> Markup:
    """Convert a figure to an SVG element for a page. The same figure always gives the same text.

    Args:
        figure: a figure in the colours of this module.
        key: the element's id is `chart-KEY`.
        label: text for screen readers.
    """
    written = io.StringIO()
    with style(key):
        undated = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(written, format="svg", transparent=True, metadata=undated)
    body = written.getvalue().partition("</defs>")[2]  # skips a style sheet that would apply to the whole page
    # Tags are between < and >, which text and attributes cannot hold unescaped: no label is changed.
    body = re.sub(r"<[^>]*>", lambda tag: _for_the_page(tag[0]), body)
    width, height = figure.get_size_inches() * 72
    start = Markup('<svg class="chart" id="chart-{}" viewBox="0 0 {:g} {:g}" role="img" aria-label="{}">').format(
        key, width, height, printable(label)
    )
    return start + Markup(re.sub(r"\s*\n\s*", "\n", body))


def _for_the_page(tag: str) -> str:
    """Give a tag the page's colours and font, and remove ids that nothing refers to."""
    for colour, name in PAGE_COLOURS.items():
        tag = tag.replace(colour, name)
    tag = re.sub(r"; font-family: [^;\"]*", "", tag)
    return re.sub(r'^<g id="[^"]*"', "<g", tag)


def png(figure: "Figure", path: Path) -> None:
    """Write the figure as a PNG with a white background."""
    with style(), replacing(path) as temporary:
        figure.savefig(temporary, dpi=200, format="png")

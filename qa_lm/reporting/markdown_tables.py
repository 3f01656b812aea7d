"""The tables of report.md: the same content as report.html's, as rows of text."""

from typing import Any

from markupsafe import Markup

from qa_lm import names
from qa_lm.reporting.markdown import table
from qa_lm.reporting.wording import decimal, percent, whole

MARKS = {"right": "✓ right", "nearly": "≈ nearly", "wrong": "✗ wrong"}


def markdown_tables(content: dict[str, Any]) -> dict[str, Markup]:
    """The tables by the names that the template has for them, from what both templates show."""
    return {
        "epochs_table": table(
            ["epoch", "train loss", "validation loss", "recall", "held out, exact match"], content["epochs"], "rrrrr"
        ),
        "board_table": _board(content["board"]),
        "stopping_table": _stopping(content["stopping"]),
        "coverage_table": _coverage(content["coverage"]),
        "samples_table": _samples(content["samples"]),
        "worst_table": _worst(content["worst"]),
    }


def _board(groups: list[Any]) -> Markup:
    header = ["pairs", "what they are", "n", names.EXACT, names.NEAREST, names.COMMON, names.NORMALISED, names.F1]
    rows = []
    for title, group in groups:
        for row in group:
            shares = [share.both for share in (row.exact, row.nearest, row.common, row.normalised, row.f1)]
            rows.append([f"{title}: {row.name}", row.meaning, whole(row.n), *shares])
    return table(header, rows, "llrrrrrr")


def _stopping(stopping: list[dict[str, Any]]) -> Markup:
    header = ["pairs", "n", "end on their own", "too early", "too late", "probability of the end"]
    rows = [
        [
            row["title"],
            whole(row["n"]),
            percent(row["stop_rate"]),
            whole(row["cut_early"]),
            whole(row["run_on"]),
            percent(row["eos_probability"]),
        ]
        for row in stopping
    ]
    return table(header, rows, "lrrrrr")


def _coverage(points: list[dict[str, float]]) -> Markup:
    rows = [
        [decimal(point["threshold"], 2), percent(point["coverage"]), percent(point["precision"])] for point in points
    ]
    return table(["probability at least", "answered", "of them right"], rows, "rrr")


def _samples(samples: list[dict[str, Any]]) -> Markup:
    rows = [
        [
            MARKS[each["mark"]],
            each["question"],
            each["generated"],
            "" if each["mark"] == "right" else each["answer"],
            each["kind"] + ("" if each["stopped"] else "; did not end on its own"),
            percent(each["probability"]),
        ]
        for each in samples
    ]
    header = ["", "question", "the model's answer", "the right answer", "pairs", "probability of being right"]
    return table(header, rows, "lllllr")


def _worst(worst: list[dict[str, Any]]) -> Markup:
    header = ["place", "question", "answer", "learnt in epoch", "times forgotten", "last loss", "why"]
    rows = [
        [
            pair["place"],
            pair["question"],
            pair["answer"],
            pair["learnt_at"],
            whole(pair["forgotten"]),
            decimal(pair["last_loss"], 2),
            pair["why"],
        ]
        for pair in worst
    ]
    return table(header, rows, "lllrrrl")

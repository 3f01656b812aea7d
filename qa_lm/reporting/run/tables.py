"""The tables of a run's report."""

from qa_lm import names
from qa_lm.reporting.run.board import SPLITS, WHOLE_SPLITS, BoardRow, thin_out
from qa_lm.reporting.tables import Cell, Table, plain_rows
from qa_lm.reporting.wording import ABSENT, decimal, excerpt, format_int, percent
from qa_lm.run.board_types import Stopping, Threshold
from qa_lm.run.reader import RunFiles, WorstPair

EPOCHS_SHOWN = 20


def epochs_table(run: RunFiles) -> Table:
    """A row per epoch. With many epochs: an even selection that includes the best and the last."""
    best = run.metrics.get("best_epoch")
    chosen = thin_out(run.epochs, EPOCHS_SHOWN)
    rows = [
        [
            format_int(row["epoch"]) + (" (best)" if row["epoch"] == best else ""),
            decimal(row["train_loss"]),
            decimal(row["val_loss"]),
            percent(row["train_recall"]),
            percent(row["val_exact_match"]),
        ]
        for row in run.epochs
        if row in chosen or row["epoch"] == best
    ]
    header = ["epoch", "train loss", "validation loss", "recall", "held out, exact match"]
    return Table("epochs", header, "rrrrr", plain_rows(rows))


def board_table(groups: list[tuple[str, list[BoardRow]]]) -> Table:
    """A row per group of pairs, with all confidence intervals."""
    untrained = any(row.before for _, group in groups for row in group)
    header = [
        *("pairs", "meaning", "n", names.EXACT, *([names.UNTRAINED] * untrained), names.NEAREST, names.COMMON),
        *(names.NORMALISED, names.F1),
    ]
    rows = [
        [Cell(f"{title}: {row.name}"), Cell(row.meaning), Cell(format_int(row.n))]
        + [
            Cell(each.text, each.interval) if each else Cell(ABSENT)
            for each in (row.exact, *([row.untrained] * untrained), row.nearest, row.common, row.normalised, row.f1)
        ]
        for title, group in groups
        for row in group
    ]
    return Table("kinds of pairs", header, "ll" + "r" * (len(header) - 2), rows)


def printed_board(rows: list[BoardRow]) -> Table:
    """The same table for the terminal, with fewer columns."""
    untrained = any(row.before for row in rows)
    header = [
        *("", "n", "exact match\n(95% interval)", "ignoring case\nand punctuation", "word\noverlap (F1)"),
        *(
            "baseline:\nnearest question",
            "baseline:\nmost common answer",
            *(["baseline:\nuntrained model"] * untrained),
        ),
    ]
    shown = []
    for row in rows:
        others = (row.normalised, row.f1, row.nearest, row.common, *([row.untrained] * untrained))
        shown.append(
            [
                Cell(row.name, indent=0 if row.name in WHOLE_SPLITS else 2),
                Cell(f"{row.n:,}"),
                Cell(f"{row.exact.value:.1%} ({row.exact.interval})"),
                *(Cell(f"{each.value:.1%}" if each else "-") for each in others),
            ]
        )
    return Table("kinds of pairs", header, "l" + "r" * (len(header) - 1), shown)


def stopping_table(stopping: list[Stopping]) -> Table:
    """A row per split, on how its answers end."""
    header = ["pairs", "n", "end on their own", "too early", "too late", "probability of the end"]
    rows = [
        [
            SPLITS.get(row["split"], row["split"]),
            format_int(row["n"]),
            percent(row["stop_rate"]),
            format_int(row["cut_early"]),
            format_int(row["run_on"]),
            percent(row["eos_probability"]),
        ]
        for row in stopping
    ]
    return Table("splits", header, "lrrrrr", plain_rows(rows))


def coverage_table(points: list[Threshold]) -> Table:
    """A row per threshold of the precision-coverage curve."""
    rows = [
        [decimal(point["threshold"], 2), percent(point["coverage"]), percent(point["precision"])] for point in points
    ]
    return Table("thresholds", ["probability\nat least", "answered", "of them\nright"], "rrr", plain_rows(rows))


def worst_table(worst: list[WorstPair]) -> Table:
    """A row per trained pair that may be a label error."""
    header = ["place", "question", "answer", "learnt in\nepoch", "times\nforgotten", "last\nloss", "why"]
    rows = [
        [
            excerpt(pair["place"]),
            excerpt(pair["question"]),
            excerpt(pair["answer"]),
            ABSENT if pair["learnt_at"] is None else str(pair["learnt_at"]),
            format_int(pair["forgotten"]),
            decimal(pair["last_loss"], 2),
            excerpt(pair["why"]),
        ]
        for pair in worst
    ]
    return Table("pairs worth checking", header, "lllrrrl", plain_rows(rows))

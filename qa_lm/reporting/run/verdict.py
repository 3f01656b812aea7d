"""The report's first paragraph: what was memorised, what generalises, and which caveats apply."""

from qa_lm.reporting.run.before import before_sentences, known_clause
from qa_lm.reporting.run.board import UNTRAINED, WHOLE_SPLITS, BoardRow, board_rows
from qa_lm.reporting.run.next_steps import LITTLE, why_little
from qa_lm.reporting.wording import format_int, percent, pluralize
from qa_lm.run.reader import RunFiles

# Minimum recall for each statement. The levels are a judgement call.
LEVELS = (
    (0.99, "The model has memorised its training questions"),
    (0.9, "The model has memorised nearly all of its training questions"),
    (0.5, "The model has memorised some of its training questions"),
    (0.05, "The model has memorised few of its training questions"),
)
NEXT_TO_NONE = "The model has memorised next to none of its training questions"
NOT_ASKED = "No training question was asked: it is unknown whether the model has memorised them."
FEW_PAIRS = 30
OFTEN_UNSTOPPED = 0.02


def verdict(run: RunFiles) -> list[str]:
    """Return the sentences of the paragraph."""
    rows = board_rows(run.board)
    trained = [row for row in rows if row.name == WHOLE_SPLITS[0]]
    held_out = [row for row in rows if row.split != "train"]
    sentences = _recall(trained[0], held_out, run) if trained else [NOT_ASKED]
    if run.metrics.get("steps") == 0:
        sentences = ["Nothing was trained: the run ended before the first training step."]
    elif never := run.metrics.get("pairs_never_trained"):
        sentences.append(f"{pluralize(never, 'training pair')} never came up in a training step and are not counted.")
    sentences += _held_out(held_out)
    if not held_out:
        sentences.append("No pairs were held out, so this says nothing about untrained questions.")
    return sentences + before_sentences(run.board) + _unfinished(run) + _doubts(run)


def _recall(row: BoardRow, held_out: list[BoardRow], run: RunFiles) -> list[str]:
    level = next((text for minimum, text in LEVELS if row.exact.value >= minimum), NEXT_TO_NONE)
    asked, trained = pluralize(row.n, "training question"), run.metrics.get("pairs_trained")
    if trained is not None and row.n < trained:
        asked = f"the {asked} asked (of {format_int(trained)})"
    new = _new_questions(held_out) if row.exact.value >= LITTLE else ""
    if row.before and row.before["known_and_kept"]:
        level = level.replace("has memorised", "answers")
    share = f"{row.exact.text} of {asked} word for word, 95% interval {row.exact.interval}{_known(row)}"
    return [f"{level}{new}.", f"It answers {share}."]


def _known(row: BoardRow) -> str:
    """A clause: how many of the right answers were known before training."""
    return known_clause(row.before["known_and_kept"] if row.before else None)


def _new_questions(held_out: list[BoardRow]) -> str:
    """A clause for the headline: the first held-out split compared with copying."""
    row = next((row for row in held_out if row.name in WHOLE_SPLITS), None)
    if row is None or row.better_baseline is None:
        return ""
    best, what = row.better_baseline
    copying = "before training" if what == UNTRAINED else "copying would"
    if row.exact.clearly_above(best):
        return f", and answers held-out ones better than {copying}"
    how = "worse than" if row.exact.value < best.value else "no better than"
    return f", but answers held-out ones {how} {copying}"


def _held_out(rows: list[BoardRow]) -> list[str]:
    sentences = []
    for split in dict.fromkeys(row.split for row in rows):
        here = [row for row in rows if row.split == split]
        for row in [row for row in here if row.name in WHOLE_SPLITS]:
            asked = f"of {pluralize(row.n, 'held-out question')} ({split})"
            start = f"It answers {row.exact.text} {asked}, 95% interval {row.exact.interval}"
            sentences.append(f"{start}{_known(row)}{_compared_with_copying(row)}.")
        kinds = [f"{row.name} {row.exact.text} of {format_int(row.n)}" for row in here if row.name not in WHOLE_SPLITS]
        if kinds:
            sentences.append(f"By kind ({split}): {'; '.join(kinds)}.")
    return sentences


def _compared_with_copying(row: BoardRow) -> str:
    """The comparison with the better baseline. It is clear only if the intervals do not overlap."""
    if row.better_baseline is None:
        return ""
    exact, (best, what) = row.exact, row.better_baseline
    if exact.value == best.value:
        return f", no more than {what}"
    how = "more" if exact.value > best.value else "fewer"
    if exact.clearly_above(best) or best.clearly_above(exact):
        return f", clearly {how} than {what} ({best.text})"
    counts = f"{format_int(exact.value * row.n)} against {format_int(best.value * row.n)}"
    return f", {how} than {what} ({best.text}), though {counts} may be chance"


def _unfinished(run: RunFiles) -> list[str]:
    if reasons := why_little(run):
        return [f"Likely reasons for the low recall: {'; '.join(reasons)}."]
    metrics = run.metrics
    best, last, stopped = (metrics.get(key) for key in ("best_epoch", "epochs_run", "stopped_early"))
    if best is None or best != last or last == 1 or stopped or (metrics.get("recall") or 0.0) >= LEVELS[0][0]:
        return []
    return [f"It was still improving when training ended: the last epoch, {format_int(best)}, is the best."]


def _doubts(run: RunFiles) -> list[str]:
    sentences = []
    for row in run.board["stopping"]:
        if row["stop_rate"] < 1 - OFTEN_UNSTOPPED:
            share = percent(1 - row["stop_rate"])
            sentences.append(f"{share} of its answers do not end on their own ({row['split']}).")
    if run.answers and len(run.answers) < FEW_PAIRS:
        sentences.append(
            f"Only {pluralize(len(run.answers), 'pair')} were asked: a few more could change these percentages."
        )
    warnings = all_warnings(run)
    if warnings:
        sentences.append(f"See the {'warning' if len(warnings) == 1 else f'{len(warnings)} warnings'} below.")
    return sentences


def all_warnings(run: RunFiles) -> list[str]:
    """All warnings, of the data and of the evaluation."""
    return [*run.data_report["warnings"], *run.board["warnings"]]

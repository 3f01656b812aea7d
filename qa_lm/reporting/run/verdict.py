"""The report's first paragraph: what was memorised, what generalises, and which caveats apply."""

from qa_lm.reporting.run.board import WHOLE_SPLITS, BoardRow, Share, board_rows
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
FEW_PAIRS = 30
OFTEN_UNSTOPPED = 0.02


def verdict(run: RunFiles) -> list[str]:
    """Return the sentences of the paragraph."""
    rows = board_rows(run.board)
    trained = [row for row in rows if row.name == WHOLE_SPLITS[0]]
    held_out = [row for row in rows if row.split != "train"]
    sentences = _recall(trained[0], held_out, run) if trained else _counted_recall(run)
    if run.metrics.get("steps") == 0:
        sentences = ["Nothing was trained: the run ended before the first training step."]
    elif never := run.metrics.get("pairs_never_trained"):
        sentences.append(f"{pluralize(never, 'training pair')} never came up in a training step and are not counted.")
    sentences += _held_out(held_out) if rows else _counted_held_out(run)
    if not held_out and not any(answer["split"] != "train" for answer in run.answers):
        sentences.append("No pairs were held out, so this says nothing about untrained questions.")
    return sentences + _unfinished(run) + _doubts(run)


def _level(recall: float) -> str:
    return next((text for minimum, text in LEVELS if recall >= minimum), NEXT_TO_NONE)


def _recall(row: BoardRow, held_out: list[BoardRow], run: RunFiles) -> list[str]:
    assert row.exact.value is not None  # the table has no row without it
    asked = _asked(row.n, run.metrics.get("pairs_trained"))
    new = _new_questions(held_out) if row.exact.value >= LITTLE else ""
    share = f"{row.exact.text} of {asked} word for word, 95% interval {row.exact.interval}"
    return [f"{_level(row.exact.value)}{new}.", f"It answers {share}."]


def _new_questions(held_out: list[BoardRow]) -> str:
    """A clause for the headline: the first held-out split compared with copying."""
    row = next((row for row in held_out if row.name in WHOLE_SPLITS), None)
    best = None if row is None else _better_baseline(row)
    if row is None or best is None or row.exact.value is None or best.value is None:
        return ""
    if _clearly_above(row.exact, best):
        return ", and answers held-out ones better than copying would"
    how = "worse than" if row.exact.value < best.value else "no better than"
    return f", but answers held-out ones {how} copying would"


def _asked(n: int, trained: int | None) -> str:
    if trained is not None and n < trained:
        return f"the {pluralize(n, 'training question')} asked (of {format_int(trained)})"
    return f"{pluralize(n, 'training question')}"


def _counted_recall(run: RunFiles) -> list[str]:
    answers = [answer for answer in run.answers if answer["split"] == "train"]
    if not answers:
        return ["No training question was asked: it is unknown whether the model has memorised them."]
    right = sum(answer["exact_match"] for answer in answers)
    asked = _asked(len(answers), run.metrics.get("pairs_trained"))
    share = f"{format_int(right)} of {asked} word for word ({percent(right / len(answers))})"
    return [f"{_level(right / len(answers))}.", f"It answers {share}."]


def _held_out(rows: list[BoardRow]) -> list[str]:
    sentences = []
    for split in dict.fromkeys(row.split for row in rows):
        here = [row for row in rows if row.split == split]
        for row in [row for row in here if row.name in WHOLE_SPLITS]:
            asked = f"of {pluralize(row.n, 'held-out question')} ({split})"
            start = f"It answers {row.exact.text} {asked}, 95% interval {row.exact.interval}"
            sentences.append(f"{start}{_compared_with_copying(row)}.")
        kinds = [f"{row.name} {row.exact.text} of {format_int(row.n)}" for row in here if row.name not in WHOLE_SPLITS]
        if kinds:
            sentences.append(f"By kind ({split}): {'; '.join(kinds)}.")
    return sentences


def _better_baseline(row: BoardRow) -> Share | None:
    known = [each for each in (row.nearest, row.common) if each.value is not None]
    return max(known, key=lambda each: each.value or 0.0) if known else None


def _clearly_above(one: Share, other: Share) -> bool:
    """Whether the intervals do not overlap."""
    return (one.low or 0.0) > (other.high if other.high is not None else other.value or 0.0)


def _compared_with_copying(row: BoardRow) -> str:
    """The comparison with the better baseline. It is clear only if the intervals do not overlap."""
    best = _better_baseline(row)
    if best is None or best.value is None or row.exact.value is None:
        return ""
    means = (
        "copying the answer of the nearest training question"
        if best is row.nearest
        else "always giving the most common answer"
    )
    if row.exact.value == best.value:
        return f", no more than {means}"
    how = "more" if row.exact.value > best.value else "fewer"
    if _clearly_above(row.exact, best) or _clearly_above(best, row.exact):
        return f", clearly {how} than {means} ({best.text})"
    counts = f"{format_int(row.exact.value * row.n)} against {format_int(best.value * row.n)}"
    return f", {how} than {means} ({best.text}), though {counts} may be chance"


def _counted_held_out(run: RunFiles) -> list[str]:
    held_out = [answer for answer in run.answers if answer["split"] != "train"]
    reasons = sorted({answer["held_out"] for answer in held_out}, reverse=True)
    sentences = []
    for reason in reasons:
        asked = [answer for answer in held_out if answer["held_out"] == reason]
        right = sum(answer["exact_match"] for answer in asked)
        kind = f"of “{reason}”" if reason else f"that {'was' if len(asked) == 1 else 'were'} never trained"
        sentences.append(f"It answers {format_int(right)} of {pluralize(len(asked), 'question')} {kind} word for word.")
    return [*sentences, "An answer to a question that was never trained is a guess."] if held_out else []


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

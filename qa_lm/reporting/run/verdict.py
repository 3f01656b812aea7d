"""The first paragraph: what was learnt, what generalises, and what to doubt, in plain words."""

from qa_lm.reporting.run.board import WHOLE, BoardRow, Share, board_rows
from qa_lm.reporting.run.next_steps import LITTLE, why_little
from qa_lm.reporting.wording import counted, percent, whole
from qa_lm.run.reader import RunFiles

# Recall from which on it counts as what. A judgement, so that a reader need not make it.
LEVELS = (
    (0.99, "It has memorised its training questions"),
    (0.9, "It has memorised nearly all of its training questions"),
    (0.5, "It has memorised some of its training questions"),
    (0.05, "It has memorised few of its training questions"),
)
NEXT_TO_NONE = "It has memorised next to none of its training questions"
FEW_PAIRS = 30
OFTEN_UNSTOPPED = 0.02


def verdict(run: RunFiles) -> list[str]:
    """The sentences of the paragraph."""
    rows = board_rows(run.board)
    trained = [row for row in rows if row.name == WHOLE[0]]
    held_out = [row for row in rows if row.split != "train"]
    sentences = _recall(trained[0], held_out, run) if trained else _counted_recall(run)
    if run.metrics.get("steps") == 0:
        sentences = ["Nothing was trained: the run ended before its first training step."]
    elif never := run.metrics.get("pairs_never_trained"):
        sentences.append(f"Of the training pairs {whole(never)} were never in a training step, and are not counted.")
    sentences += _held_out(held_out) if rows else _counted_held_out(run)
    if not held_out and not any(answer["split"] != "train" for answer in run.answers):
        sentences.append("Nothing was held out, so this says nothing about questions that it was not trained on.")
    return sentences + _unfinished(run) + _doubts(run)


def _level(recall: float) -> str:
    return next((words for least, words in LEVELS if recall >= least), NEXT_TO_NONE)


def _recall(row: BoardRow, held_out: list[BoardRow], run: RunFiles) -> list[str]:
    assert row.exact.value is not None  # the table has no row without it
    asked = _asked(row.n, run.metrics.get("pairs_trained"))
    new = _new_questions(held_out) if row.exact.value >= LITTLE else ""
    share = f"{row.exact.text} word for word, 95% interval {row.exact.interval}"
    return [f"{_level(row.exact.value)}{new}.", f"Of {asked} it answers {share}."]


def _new_questions(held_out: list[BoardRow]) -> str:
    """How it answers the first split that was held out, beside copying: a clause for the headline."""
    row = next((row for row in held_out if row.name in WHOLE), None)
    best = None if row is None else _better_baseline(row)
    if row is None or best is None or row.exact.value is None or best.value is None:
        return ""
    if _clearly_above(row.exact, best):
        return ", and answers held-out ones better than copying would"
    how = "worse than" if row.exact.value < best.value else "no better than"
    return f", but answers held-out ones {how} copying would"


def _asked(n: int, trained: int | None) -> str:
    if trained is not None and n < trained:
        return f"{whole(n)} of the {counted(trained, 'training question')}"
    return f"{counted(n, 'training question')}"


def _counted_recall(run: RunFiles) -> list[str]:
    answers = [answer for answer in run.answers if answer["split"] == "train"]
    if not answers:
        return ["No training question was asked, so whether it has memorised them is not known."]
    right = sum(answer["exact_match"] for answer in answers)
    asked = _asked(len(answers), run.metrics.get("pairs_trained"))
    share = f"{whole(right)} ({percent(right / len(answers))})"
    return [f"{_level(right / len(answers))}.", f"Of {asked} it answers {share} word for word."]


def _held_out(rows: list[BoardRow]) -> list[str]:
    sentences = []
    for split in dict.fromkeys(row.split for row in rows):
        here = [row for row in rows if row.split == split]
        for row in [row for row in here if row.name in WHOLE]:
            asked = f"Of {counted(row.n, 'held-out question')} ({split}) it answers"
            start = f"{asked} {row.exact.text}, 95% interval {row.exact.interval}"
            sentences.append(f"{start}{_beside_copying(row)}.")
        kinds = [f"{row.name} {row.exact.text} of {whole(row.n)}" for row in here if row.name not in WHOLE]
        if kinds:
            sentences.append(f"By kind ({split}): {'; '.join(kinds)}.")
    return sentences


def _better_baseline(row: BoardRow) -> Share | None:
    known = [each for each in (row.nearest, row.common) if each.value is not None]
    return max(known, key=lambda each: each.value or 0.0) if known else None


def _clearly_above(one: Share, other: Share) -> bool:
    """Whether the intervals do not meet."""
    return (one.low or 0.0) > (other.high if other.high is not None else other.value or 0.0)


def _beside_copying(row: BoardRow) -> str:
    """The comparison with the better baseline; it is certain only where the intervals do not meet."""
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
    counts = f"{whole(row.exact.value * row.n)} against {whole(best.value * row.n)}"
    return f", {how} than {means} ({best.text}), though {counts} may be chance"


def _counted_held_out(run: RunFiles) -> list[str]:
    held_out = [answer for answer in run.answers if answer["split"] != "train"]
    reasons = sorted({answer["held_out"] for answer in held_out}, reverse=True)
    sentences = []
    for reason in reasons:
        asked = [answer for answer in held_out if answer["held_out"] == reason]
        right = sum(answer["exact_match"] for answer in asked)
        kind = f"of “{reason}”" if reason else f"that {'was' if len(asked) == 1 else 'were'} never trained"
        sentences.append(f"Of {counted(len(asked), 'question')} {kind} it answers {whole(right)} word for word.")
    return [*sentences, "An answer to a question that was never trained is a guess."] if held_out else []


def _unfinished(run: RunFiles) -> list[str]:
    if reasons := why_little(run):
        return [f"Why it learnt little: {'; '.join(reasons)}."]
    metrics = run.metrics
    best, last, stopped = (metrics.get(key) for key in ("best_epoch", "epochs_run", "stopped_early"))
    if best is None or best != last or last == 1 or stopped or (metrics.get("recall") or 0.0) >= LEVELS[0][0]:
        return []
    return [f"It was still improving when training ended: the last epoch, {whole(best)}, is the best one."]


def _doubts(run: RunFiles) -> list[str]:
    sentences = []
    for row in run.board["stopping"]:
        if row["stop_rate"] < 1 - OFTEN_UNSTOPPED:
            share = percent(1 - row["stop_rate"])
            sentences.append(f"Of its answers {share} do not end on their own ({row['split']}).")
    if run.answers and len(run.answers) < FEW_PAIRS:
        sentences.append(f"Only {counted(len(run.answers), 'pair')} were asked: a few more could change these shares.")
    warnings = all_warnings(run)
    if warnings:
        sentences.append(f"See the {'warning' if len(warnings) == 1 else f'{len(warnings)} warnings'} below.")
    return sentences


def all_warnings(run: RunFiles) -> list[str]:
    """Of the data and of the evaluation."""
    return [*run.data_report["warnings"], *run.board["warnings"]]

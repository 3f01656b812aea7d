"""The first paragraph: what was learnt, what carries over, and what to doubt, in plain words."""

from typing import Any

from qa_lm.reporting.board import WHOLE, BoardRow, board_rows, stopping_rows
from qa_lm.reporting.run_files import RunFiles
from qa_lm.reporting.wording import counted, finite, percent, whole

# From which recall on it counts as what. A judgement, so that a reader need not make it.
LEVELS = (
    (0.99, "It has learnt what it was taught"),
    (0.9, "It has learnt nearly all that it was taught"),
    (0.5, "It has learnt a part of what it was taught"),
    (0.05, "It has learnt little of what it was taught"),
)
FEW_PAIRS = 30
OFTEN_UNSTOPPED = 0.02


def verdict(run: RunFiles) -> list[str]:
    """The sentences of the paragraph."""
    rows = board_rows(run.board)
    trained = [row for row in rows if row.name == "trained pairs"]
    sentences = [_recall(trained[0], run)] if trained else _counted_recall(run)
    if run.metrics.get("steps") == 0:
        sentences = ["Nothing was trained: the run ended before its first training step."]
    elif never := finite(run.metrics.get("pairs_never_trained")):
        sentences.append(f"Of the training pairs {whole(never)} were never in a training step, and are not counted.")
    held_out = [row for row in rows if row.split != "train"]
    sentences += _held_out(held_out) if rows else _counted_held_out(run)
    if not held_out and not any(answer.get("split") != "train" for answer in run.answers):
        sentences.append("Nothing was held out, so this says nothing about questions that it was not trained on.")
    return sentences + _unfinished(run) + _doubts(run)


def _level(recall: float) -> str:
    return next(
        (words for least, words in LEVELS if recall >= least), "It has learnt next to nothing of what it was taught"
    )


def _recall(row: BoardRow, run: RunFiles) -> str:
    if row.exact.value is None:
        return "Whether it has learnt what it was taught was not measured."
    interval = f", 95% interval {row.exact.interval}" if row.exact.interval else ""
    asked = _asked(row.n, finite(run.metrics.get("pairs_trained")))
    return f"{_level(row.exact.value)}: of {asked} it answers {row.exact.text} exactly, token for token{interval}."


def _asked(n: float | None, trained: float | None) -> str:
    if n is None:
        return "the trained questions"
    if trained is not None and n < trained:
        return f"{whole(n)} asked of the {counted(trained, 'trained question')}"
    return f"{counted(n, 'trained question')}"


def _counted_recall(run: RunFiles) -> list[str]:
    answers = [answer for answer in run.answers if answer.get("split") == "train"]
    if not answers:
        return ["No trained question was asked, so whether it has learnt them is not known."]
    right = sum(bool(answer.get("exact_match")) for answer in answers)
    asked = _asked(len(answers), finite(run.metrics.get("pairs_trained")))
    share = f"{whole(right)} ({percent(right / len(answers))})"
    return [f"{_level(right / len(answers))}: of {asked} it answers {share} exactly, token for token."]


def _held_out(rows: list[BoardRow]) -> list[str]:
    sentences = []
    for split in dict.fromkeys(row.split for row in rows):
        here = [row for row in rows if row.split == split]
        for row in [row for row in here if row.name in WHOLE]:
            interval = f", 95% interval {row.exact.interval}" if row.exact.interval else ""
            start = f"Of {counted(row.n, 'held-out pair')} ({split}) it answers {row.exact.text}{interval}"
            sentences.append(f"{start}{_beside_copying(row)}.")
        kinds = [f"{row.name} {row.exact.text} of {whole(row.n)}" for row in here if row.name not in WHOLE]
        if kinds:
            sentences.append(f"By kind ({split}): {'; '.join(kinds)}.")
    return sentences


def _beside_copying(row: BoardRow) -> str:
    """The comparison with the better baseline; only intervals that do not meet count as a difference."""
    known = [each for each in (row.nearest, row.common) if each.value is not None]
    if not known or row.exact.value is None:
        return ""
    best = max(known, key=lambda each: each.value or 0.0)
    means = "copying the answer of the nearest trained question" if best is row.nearest else "one answer to everything"
    low, high = row.exact.low or 0.0, 1.0 if row.exact.high is None else row.exact.high
    if low > (best.high if best.high is not None else best.value or 0.0):
        return f", clearly more than {means} ({best.text})"
    if high < (best.low if best.low is not None else best.value or 0.0):
        return f", clearly less than {means} ({best.text})"
    return f", not clearly different from {means} ({best.text})"


def _counted_held_out(run: RunFiles) -> list[str]:
    held_out = [answer for answer in run.answers if answer.get("split") != "train"]
    reasons = sorted({answer.get("held_out") or "" for answer in held_out}, reverse=True)
    sentences = []
    for reason in reasons:
        asked = [answer for answer in held_out if (answer.get("held_out") or "") == reason]
        right = sum(bool(answer.get("exact_match")) for answer in asked)
        kind = f"of “{reason}”" if reason else f"that {'was' if len(asked) == 1 else 'were'} never trained"
        sentences.append(f"Of {counted(len(asked), 'question')} {kind} it answers {whole(right)} exactly.")
    return [*sentences, "An answer to what was never trained is a guess."] if held_out else []


def _unfinished(run: RunFiles) -> list[str]:
    metrics = run.metrics
    best, last, stopped = (metrics.get(key) for key in ("best_epoch", "epochs_run", "stopped_early"))
    if best is None or best != last or last == 1 or stopped or (finite(metrics.get("recall")) or 0.0) >= LEVELS[0][0]:
        return []
    return [f"It was still getting better when it ended: the last epoch, {whole(best)}, is the best one."]


def _doubts(run: RunFiles) -> list[str]:
    sentences = []
    for row in stopping_rows(run.board):
        if row["stop_rate"] is not None and row["stop_rate"] < 1 - OFTEN_UNSTOPPED:
            share = percent(1 - row["stop_rate"])
            sentences.append(f"Of its answers {share} do not end by themselves ({row['split']}).")
    if run.answers and len(run.answers) < FEW_PAIRS:
        sentences.append(f"Only {counted(len(run.answers), 'pair')} were asked: a few more could change these shares.")
    warnings = all_warnings(run)
    if warnings:
        sentences.append(f"Mind the {'warning' if len(warnings) == 1 else f'{len(warnings)} warnings'} below.")
    return sentences


def all_warnings(run: RunFiles) -> list[str]:
    """Of the data and of the evaluation."""
    found: list[Any] = [*(run.data_report.get("warnings") or []), *(run.board.get("warnings") or [])]
    return [str(warning) for warning in found]

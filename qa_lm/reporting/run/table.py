"""The end of a run, as a short table of questions and the model's answers."""

import json
import textwrap
from pathlib import Path
from typing import Any

from qa_lm.reporting.columns import short, straight
from qa_lm.reporting.run.board import WHOLE, ending_words

ROWS = 10
WIDTH = 44
HEADINGS = (
    ("", "", "exact match", "ignoring case", "word", "baseline:", "baseline:"),
    ("", "n", "(95% interval)", "and punctuation", "overlap (F1)", "nearest question", "most common answer"),
)
"""The columns of `qa_lm.names`, in two lines."""


def answers_table(run_folder: Path) -> str:
    """Questions, answers and verdicts of a run folder, and what they add up to.

    The held-out questions come first, then the trained ones, `ROWS` in all; answers.jsonl has every one.
    """
    answers = _read_answers(run_folder)
    metrics = json.loads((run_folder / "metrics.json").read_text(encoding="utf-8"))
    held_out = [answer for answer in answers if answer["split"] != "train"]
    trained = [answer for answer in answers if answer["split"] == "train"]
    shown = [*held_out[: max(ROWS // 2, ROWS - len(trained))], *trained]
    rows = [("question", "the model's answer", "verdict", "trained?")]
    rows += [
        (
            short(a["question"], WIDTH),
            short(a["generated"], WIDTH) or "(empty answer)",
            _verdict(a),
            "yes" if a["split"] == "train" else "no",
        )
        for a in shown[:ROWS]
    ]
    board = json.loads((run_folder / "board.json").read_text(encoding="utf-8"))
    return "\n".join([*straight(rows), "", *board_lines(board), "", *_summary(trained, held_out, metrics)])


def board_lines(board: dict[str, Any]) -> list[str]:
    """board.json as a table, with how answers end and its warnings."""
    rows = list(HEADINGS)
    for row in board["rows"]:
        exact, baselines = row["exact_match"], row["baselines"] or {}
        indent = "" if row["name"] in WHOLE else "  "
        rows.append(
            (
                indent + row["name"],
                f"{row['n']:,}",
                f"{_percent(exact)} ({exact['low']:.1%} to {exact['high']:.1%})",
                _percent(row["normalised_exact_match"]),
                _percent(row["f1"]),
                _percent(baselines.get("nearest_question")),
                _percent(baselines.get("most_common_answer")),
            )
        )
    lines = straight(rows, len(HEADINGS))
    for found in board["stopping"]:
        lines += textwrap.wrap(ending_words(found), 120)
    return [*lines, *(line for each in board["warnings"] for line in textwrap.wrap(f"warning: {each}", 120))]


def _percent(share: dict[str, float] | None) -> str:
    return "-" if share is None else f"{share['value']:.1%}"


def _summary(trained: list[dict[str, Any]], held_out: list[dict[str, Any]], metrics: dict[str, Any]) -> list[str]:
    epochs = f"Best epoch: {metrics['best_epoch']} of {metrics['epochs_run']}"
    if metrics["best_epoch"] is None:
        epochs = f"Epochs: {metrics['epochs_run']}; no best checkpoint was kept"
    lines = [
        epochs
        + ("" if metrics["best_val_loss"] is None else f", validation loss {metrics['best_val_loss']:.4f}")
        + f". {metrics['seconds']:.0f} s in total (without start-up)."
    ]
    if metrics.get("steps") == 0:
        lines = [f"Nothing was trained. {metrics['seconds']:.0f} s in all."]
    if trained:
        lines.append(f"Memorised (recall): {_count(trained)} training questions answered word for word.")
    reasons = sorted({answer["held_out"] for answer in held_out if answer["held_out"]}, reverse=True)
    for reason in reasons:
        asked = [answer for answer in held_out if answer["held_out"] == reason]
        lines.append(f"Held out, {reason}: {_count(asked)} questions answered word for word{_copying(asked)}.")
    if held_out and not reasons:
        right = f"{_count(held_out)} questions that were never trained answered word for word"
        lines.append(f"Held out: {right}{_copying(held_out)}.")
    if held_out:
        lines.append("An answer to a question that was never trained is a guess, however confident it sounds.")
    return [line for text in lines for line in textwrap.wrap(text, 120)]


def _copying(asked: list[dict[str, Any]]) -> str:
    """What the better baseline would have scored, where it scores anything."""
    ways = {
        "nearest_is_right": "copying the answer of the nearest training question",
        "most_common_is_right": "always giving the most common answer",
    }
    right = {name: sum(bool(answer[name]) for answer in asked) for name in ways}
    best = max(ways, key=lambda name: right[name])
    return f"; {ways[best]} would get {right[best]} right" if right[best] else ""


def _count(answers: list[dict[str, Any]]) -> str:
    return f"{sum(answer['exact_match'] for answer in answers)} of {len(answers)}"


def _verdict(answer: dict[str, Any]) -> str:
    if answer["exact_match"]:
        return "right"
    how = "nearly" if answer["normalised_exact_match"] else "wrong"
    return f"{how}: {short(answer['answer'], WIDTH)}"


def _read_answers(run_folder: Path) -> list[dict[str, Any]]:
    with (run_folder / "answers.jsonl").open(encoding="utf-8") as file:
        return [json.loads(line) for line in file]

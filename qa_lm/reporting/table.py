"""The end of a run, as a short table of questions and the model's answers."""

import json
import textwrap
import unicodedata
from pathlib import Path
from typing import Any

ROWS = 10
WIDTH = 44


def answers_table(run_folder: Path) -> str:
    """Questions, answers and verdicts of a run folder, and what they add up to.

    The held-out questions come first, then the trained ones, `ROWS` in all; answers.jsonl has every one.
    """
    answers = _read_answers(run_folder)
    metrics = json.loads((run_folder / "metrics.json").read_text(encoding="utf-8"))
    held_out = [answer for answer in answers if answer["split"] != "train"]
    trained = [answer for answer in answers if answer["split"] == "train"]
    shown = [*held_out[: max(ROWS // 2, ROWS - len(trained))], *trained]
    rows = [("question", "the model's answer", "", "")]
    rows += [
        (
            _short(a["question"]),
            _short(a["generated"]) or "(nothing)",
            _verdict(a),
            "trained" if a["split"] == "train" else "not trained",
        )
        for a in shown[:ROWS]
    ]
    widths = [max(_cells(row[column]) for row in rows) for column in range(4)]
    lines = [
        "  ".join(cell + " " * (width - _cells(cell)) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
    lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join([*lines, "", *_summary(trained, held_out, metrics)])


def _summary(trained: list[dict[str, Any]], held_out: list[dict[str, Any]], metrics: dict[str, Any]) -> list[str]:
    lines = [
        f"Best epoch: {metrics['best_epoch']} of {metrics['epochs_run']}"
        + ("" if metrics["best_val_loss"] is None else f", validation loss {metrics['best_val_loss']:.4f}")
        + f". {metrics['seconds']:.0f} s in all."
    ]
    if trained:
        lines.append(f"Recall: {_count(trained)} trained questions are answered exactly.")
    reasons = sorted({answer["held_out"] for answer in held_out if answer["held_out"]}, reverse=True)
    for reason in reasons:
        asked = [answer for answer in held_out if answer["held_out"] == reason]
        lines.append(f"Held out, {reason}: {_count(asked)} questions are answered exactly.")
    if held_out and not reasons:
        lines.append(f"Held out: {_count(held_out)} questions that were never trained are answered exactly.")
    if held_out:
        lines.append("An answer to what was never trained is a guess, however sure it sounds.")
    return [line for text in lines for line in textwrap.wrap(text, 120)]


def _count(answers: list[dict[str, Any]]) -> str:
    return f"{sum(answer['exact_match'] for answer in answers)} of {len(answers)}"


def _verdict(answer: dict[str, Any]) -> str:
    if answer["exact_match"]:
        return "exact"
    return f"wrong: {_short(answer['answer'])}"


def _short(text: str) -> str:
    line = " ".join(text.split())
    if _cells(line) <= WIDTH:
        return line
    line = line[: 2 * WIDTH]
    while _cells(line) > WIDTH - 3:
        line = line[:-1]
    return line + "..."


def _cells(text: str) -> int:
    """Columns that a terminal gives the text: two for Chinese, Japanese, Korean and emoji, none for combining marks."""
    return sum(
        0 if unicodedata.combining(each) else 2 if unicodedata.east_asian_width(each) in "WF" else 1 for each in text
    )


def _read_answers(run_folder: Path) -> list[dict[str, Any]]:
    with (run_folder / "answers.jsonl").open(encoding="utf-8") as file:
        return [json.loads(line) for line in file]

"""The end of a run, as a short table of questions and the model's answers."""

import json
import textwrap
from pathlib import Path
from typing import Any

from qa_lm.reporting.columns import short, straight

ROWS = 10
WIDTH = 44
WHOLE = ("trained pairs", "all held-out pairs", "all test pairs", "all pairs")
"""Rows of the board that the rows after them are parts of."""


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
            short(a["question"], WIDTH),
            short(a["generated"], WIDTH) or "(nothing)",
            _verdict(a),
            "trained" if a["split"] == "train" else "not trained",
        )
        for a in shown[:ROWS]
    ]
    board = json.loads((run_folder / "board.json").read_text(encoding="utf-8"))
    return "\n".join([*straight(rows), "", *board_lines(board), "", *_summary(trained, held_out, metrics)])


def board_lines(board: dict[str, Any]) -> list[str]:
    """board.json as a table, with what is said about stopping and its warnings."""
    rows = [("", "n", "exact match (95% interval)", "normalised", "F1", "copy of nearest", "most common")]
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
    lines = straight(rows)
    for found in board["stopping"]:
        end = found["eos_probability"]
        sentence = (
            f"Stopping, {found['split']}: {found['stop_rate']:.1%} of {found['n']:,} answers stop by themselves, "
            f"{found['cut_early']:,} end too early, {found['run_on']:,} run on"
            + ("." if end is None else f"; EOS after the true answer has probability {end:.1%}.")
        )
        lines += textwrap.wrap(sentence, 120)
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
        + f". {metrics['seconds']:.0f} s in all."
    ]
    if metrics.get("steps") == 0:
        lines = [f"Nothing was trained. {metrics['seconds']:.0f} s in all."]
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
    return f"wrong: {short(answer['answer'], WIDTH)}"


def _read_answers(run_folder: Path) -> list[dict[str, Any]]:
    with (run_folder / "answers.jsonl").open(encoding="utf-8") as file:
        return [json.loads(line) for line in file]

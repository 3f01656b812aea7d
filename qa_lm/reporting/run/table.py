"""The results that a run prints at its end: sample answers, scores and a summary."""

import textwrap
from pathlib import Path

from qa_lm.reporting.run.before import before_lines, before_sentences, known_clause, lost_lines
from qa_lm.reporting.run.board import COMMON_ANSWER, COPYING, board_rows, ending_text
from qa_lm.reporting.run.known import known_lines
from qa_lm.reporting.run.tables import printed_board
from qa_lm.reporting.tables import Table, plain_rows, truncate
from qa_lm.run.board_types import Board
from qa_lm.run.reader import Answer, Metrics, read_answers, read_board, read_metrics

ROWS = 10
WIDTH = 44


def answers_table(run_folder: Path) -> str:
    """Format sample answers, scores and a summary of a run folder for the terminal.

    It shows `ROWS` answers, held-out questions first. answers.jsonl has all answers.
    """
    answers, metrics = read_answers(run_folder), read_metrics(run_folder)
    held_out = [answer for answer in answers if answer["split"] != "train"]
    trained = [answer for answer in answers if answer["split"] == "train"]
    shown = [*held_out[: max(ROWS // 2, ROWS - len(trained))], *trained]
    rows = [
        [
            truncate(a["question"], WIDTH),
            truncate(a["generated"], WIDTH) or "(empty answer)",
            _verdict(a),
            "yes" if a["split"] == "train" else "no",
        ]
        for a in shown[:ROWS]
    ]
    table = Table("answers", ["question", "the model's answer", "verdict", "trained?"], "llll", plain_rows(rows))
    board = read_board(run_folder)
    summary = [*_summary(trained, held_out, metrics), *textwrap.wrap(" ".join(before_sentences(board)), 120)]
    shown_board = [*board_lines(board), *lost_lines(board)]
    return "\n".join([*table.lines(letters=WIDTH + 8), "", *shown_board, "", *summary])


def board_lines(board: Board) -> list[str]:
    """Format board.json for the terminal: its tables, how answers end, and its warnings."""
    lines = [*printed_board(board_rows(board)).lines(), *before_lines(board)]
    for stopping in board["stopping"]:
        lines += textwrap.wrap(ending_text(stopping), 120)
    lines += [line for each in known_lines(board) for line in textwrap.wrap(each, 120) or [""]]
    return [*lines, *(line for each in board["warnings"] for line in textwrap.wrap(f"warning: {each}", 120))]


def _summary(trained: list[Answer], held_out: list[Answer], metrics: Metrics) -> list[str]:
    epochs = f"Best epoch: {metrics['best_epoch']} of {metrics['epochs_run']}"
    if metrics["best_epoch"] is None:
        epochs = f"Epochs: {metrics['epochs_run']}; no best checkpoint was kept"
    lines = [
        epochs
        + ("" if metrics["best_val_loss"] is None else f", validation loss {metrics['best_val_loss']:.4f}")
        + f". {metrics['seconds']:.0f} s in total."
    ]
    if metrics.get("steps") == 0:
        lines = [f"Nothing was trained. {metrics['seconds']:.0f} s in total."]
    if trained:
        lines.append(
            f"Memorised (recall): {_count(trained)} training questions answered word for word{_known(trained)}."
        )
    reasons = sorted({answer["held_out"] for answer in held_out if answer["held_out"]}, reverse=True)
    for reason in reasons:
        asked = [answer for answer in held_out if answer["held_out"] == reason]
        lines.append(
            f"Held out, {reason}: {_count(asked)} questions answered word for word{_known(asked)}{_copying(asked)}."
        )
    if held_out and not reasons:
        right = f"{_count(held_out)} questions that were never trained answered word for word{_known(held_out)}"
        lines.append(f"Held out: {right}{_copying(held_out)}.")
    if held_out:
        guess = "what the model knew before, or a guess" if _known(held_out) else "a guess"
        lines.append(f"An answer to a question that was never trained is {guess}, however confident it sounds.")
    return [line for text in lines for line in textwrap.wrap(text, 120)]


def _known(asked: list[Answer]) -> str:
    known = [answer.get("known_before") for answer in asked]
    kept = sum(bool(answer["exact_match"] and answer.get("known_before")) for answer in asked)
    return known_clause(None if None in known else kept)


def _copying(asked: list[Answer]) -> str:
    """The score of the better baseline, as a clause; empty if both score 0."""
    nearest = sum(bool(answer["nearest_is_right"]) for answer in asked)
    common = sum(bool(answer["most_common_is_right"]) for answer in asked)
    if not nearest and not common:
        return ""
    return f"; {COPYING if nearest >= common else COMMON_ANSWER} would get {max(nearest, common)} right"


def _count(answers: list[Answer]) -> str:
    return f"{sum(answer['exact_match'] for answer in answers)} of {len(answers)}"


def _verdict(answer: Answer) -> str:
    if answer["exact_match"]:
        return "right"
    how = "nearly" if answer["normalised_exact_match"] else "wrong"
    return f"{how}: {truncate(answer['answer'], WIDTH)}"

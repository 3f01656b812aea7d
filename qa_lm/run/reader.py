"""Read a run folder, each file with its types.

While a run trains, it has no metrics, answers, board or ledger yet.
"""

import csv
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NotRequired, TypedDict, cast

import yaml

from qa_lm.errors import UserError, first_line
from qa_lm.run import run_folder
from qa_lm.run.board_types import Board


class Metrics(TypedDict, total=False):
    """The fixed part of metrics.json: numbers in seconds, bytes, nats or fractions; null if not measured. It is empty
    before training ends."""

    best_epoch: int | None
    best_val_loss: float | None
    final_train_recall: float | None
    exported_weights: str
    stopped_early: bool
    diverged: bool
    epochs_run: int
    steps: int
    recall: float | None
    pairs_trained: int
    pairs_never_trained: int
    parameters: int
    seconds: float
    train_seconds: float
    tokens_per_second: float | None
    peak_memory: int | None


class WorstPair(TypedDict):
    """A trained pair that may be a label error."""

    place: str
    question: str
    answer: str
    learnt_at: int | None
    forgotten: int
    last_loss: float | None
    why: str


class LedgerSummary(TypedDict):
    """Content of ledger_summary.json."""

    pairs: int
    learnt: int
    never_learnt: int
    forgotten: int
    epochs: int
    known_before: NotRequired[int]
    learnt_known_before: NotRequired[int]
    note: str
    worst: list[WorstPair]


class Answer(TypedDict):
    """A line of answers.jsonl."""

    question: str
    answer: str
    generated: str
    exact_match: bool
    normalised_exact_match: bool
    stopped: bool
    split: str
    held_out: str
    relation: str
    nearest_is_right: bool | None
    most_common_is_right: bool | None
    probability: float | None
    known_before: NotRequired[bool]


Epoch = dict[str, float | None]
"""A row of metrics.csv: number by column, None if not measured."""


@dataclass(frozen=True)
class RunFiles:
    """The content of a run folder."""

    name: str
    """The last two parts of the folder's path, by default a date and a time."""
    config: dict[str, Any]
    config_text: str
    """Text of config.yaml."""
    environment: dict[str, Any]
    data_report: dict[str, Any]
    epochs: list[Epoch]
    bad_batches: list[dict[str, Any]]
    metrics: Metrics
    """Empty before training ends, like the answers and the board."""
    answers: list[Answer]
    board: Board
    ledger: LedgerSummary | None
    has_picture: bool
    """Whether loss_curve.png exists."""


def read_run(folder: Path) -> RunFiles:
    """Read a run folder.

    Raises:
        UserError: it is not a run folder, the run ended before its first step, or a file is damaged.
    """
    for name in (run_folder.CONFIG, run_folder.ENVIRONMENT, run_folder.DATA_REPORT):
        if not (folder / name).is_file():
            raise UserError(f"{folder}: not a run folder: {name} is missing")
    config_text = _text(folder / run_folder.CONFIG)
    ledger, board = folder / run_folder.LEDGER_SUMMARY, folder / run_folder.BOARD
    empty_board: Board = {"rows": [], "stopping": [], "confidence": None, "warnings": []}
    return RunFiles(
        name="/".join(folder.resolve().parts[-2:]),
        config=yaml.safe_load(config_text),
        config_text=config_text,
        environment=read_object(folder / run_folder.ENVIRONMENT),
        data_report=read_object(folder / run_folder.DATA_REPORT),
        epochs=read_epochs(folder),
        bad_batches=_lines(folder / run_folder.BAD_BATCHES),
        metrics=read_metrics(folder) if (folder / run_folder.METRICS).is_file() else {},
        answers=cast(list[Answer], _lines(folder / run_folder.ANSWERS)),
        board=read_board(folder) if board.is_file() else empty_board,
        ledger=cast(LedgerSummary, read_object(ledger)) if ledger.is_file() else None,
        has_picture=(folder / run_folder.LOSS_CURVE).is_file(),
    )


def read_metrics(folder: Path) -> Metrics:
    """Read metrics.json of a run folder.

    Raises:
        UserError: training has not ended, or the file is damaged.
    """
    return cast(Metrics, read_object(finished_file(folder, run_folder.METRICS)))


def read_board(folder: Path) -> Board:
    """Read board.json of a run folder; see `read_metrics` for errors."""
    return cast(Board, read_object(finished_file(folder, run_folder.BOARD)))


def read_answers(folder: Path) -> list[Answer]:
    """Read answers.jsonl of a run folder; see `read_metrics` for errors."""
    return cast(list[Answer], _lines(finished_file(folder, run_folder.ANSWERS)))


def finished_file(folder: Path, name: str) -> Path:
    """Return the path of a file that is written when training ends, or raise `UserError` if it is missing."""
    path = folder / name
    if not path.is_file():
        raise UserError(f"{folder}: {name} is missing; it is written when training ends")
    return path


def read_epochs(folder: Path) -> list[Epoch]:
    """Read metrics.csv of a run folder; empty if it does not exist."""
    path = folder / run_folder.METRICS_BY_EPOCH
    try:
        rows = csv.DictReader(_text(path).splitlines()) if path.is_file() else ()
        return [{column: finite(float(text)) if text else None for column, text in row.items()} for row in rows]
    except (ValueError, TypeError) as error:
        raise UserError(f"{path}: cannot be read: {first_line(error)}") from None


def read_object(path: Path) -> dict[str, Any]:
    """Read a JSON object from a file."""
    return _object(path, _text(path))


def finite(value: object) -> float | None:
    """Convert a finite number to float; None for anything else, such as null, nan and infinity."""
    if isinstance(value, int | float) and math.isfinite(value):
        return float(value)
    return None


def _lines(path: Path) -> list[dict[str, Any]]:
    """Read a file with one JSON object per line; empty if it does not exist."""
    return [_object(path, line) for line in _text(path).split("\n") if line.strip()] if path.is_file() else []


def _object(path: Path, text: str) -> dict[str, Any]:
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: cannot be read: {first_line(error)}") from None
    if not isinstance(content, dict):
        raise UserError(f"{path}: cannot be read: not a JSON object")
    return content


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read: {first_line(error)}") from None

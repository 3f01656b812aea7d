"""A run folder, read: each file with the types that it has.

A run that still trains has no metrics, answers, board or ledger yet; a run without a ledger never has one.
"""

import csv
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict, cast

import yaml

from qa_lm.errors import UserError, first_line
from qa_lm.run import run_folder


class Metrics(TypedDict, total=False):
    """metrics.json, as far as it has a fixed content: numbers in seconds, bytes, nats or shares; null if not
    measured. Nothing is there before training ends."""

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


class Measured(TypedDict):
    """A share with its 95% interval."""

    value: float
    low: float
    high: float


class Baselines(TypedDict):
    """The exact match of copying."""

    nearest_question: Measured
    most_common_answer: Measured


class Row(TypedDict):
    """A kind of pairs, and how they are answered."""

    split: str
    name: str
    n: int
    exact_match: Measured
    normalised_exact_match: Measured
    f1: Measured
    baselines: Baselines | None


class Stopping(TypedDict):
    """How the answers of a split end."""

    split: str
    n: int
    stop_rate: float
    cut_early: int
    run_on: int
    eos_probability: float | None


class Threshold(TypedDict):
    """A point of the curve of precision by coverage."""

    threshold: float
    coverage: float
    precision: float


class HeldOut(TypedDict):
    """What the curve of precision by coverage rests on."""

    pairs: int
    right: int
    needed: int


class Confidence(TypedDict):
    """How probabilities are calibrated, and how good they are."""

    method: str
    fitted_on: dict[str, int]
    brier: float
    curve: list[Threshold]
    held_out: HeldOut


class Board(TypedDict):
    """board.json."""

    rows: list[Row]
    stopping: list[Stopping]
    confidence: Confidence | None
    warnings: list[str]


class WorstPair(TypedDict):
    """A trained pair that may be wrong."""

    place: str
    question: str
    answer: str
    learnt_at: int | None
    forgotten: int
    last_loss: float | None
    why: str


class LedgerSummary(TypedDict):
    """ledger_summary.json."""

    pairs: int
    learnt: int
    never_learnt: int
    forgotten: int
    epochs: int
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


Epoch = dict[str, float | None]
"""A line of metrics.csv: each column's number, None where it was not measured."""


@dataclass(frozen=True)
class RunFiles:
    """The content of a run folder."""

    name: str
    """The last two parts of the folder's path: a date and a time, by default."""
    config: dict[str, Any]
    config_text: str
    """config.yaml as it stands."""
    environment: dict[str, Any]
    data_report: dict[str, Any]
    epochs: list[Epoch]
    bad_batches: list[dict[str, Any]]
    metrics: Metrics
    """Empty before training ends, as are the answers and the board."""
    answers: list[Answer]
    board: Board
    ledger: LedgerSummary | None
    has_picture: bool
    """Whether loss_curve.png is there."""


def read_run(folder: Path) -> RunFiles:
    """Read a run folder.

    Raises:
        UserError: it holds no run, or one that ended before its first step; or a file of it is damaged.
    """
    for name in (run_folder.CONFIG, run_folder.ENVIRONMENT, run_folder.DATA_REPORT):
        if not (folder / name).is_file():
            raise UserError(f"{folder}: not a run folder, it has no {name}")
    config_text = _text(folder / run_folder.CONFIG)
    ledger, board = folder / run_folder.LEDGER_SUMMARY, folder / run_folder.BOARD
    nothing: Board = {"rows": [], "stopping": [], "confidence": None, "warnings": []}
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
        board=read_board(folder) if board.is_file() else nothing,
        ledger=cast(LedgerSummary, read_object(ledger)) if ledger.is_file() else None,
        has_picture=(folder / run_folder.LOSS_CURVE).is_file(),
    )


def read_metrics(folder: Path) -> Metrics:
    """The metrics.json of a run folder.

    Raises:
        UserError: the run has not ended, or the file is damaged. So do the other functions.
    """
    return cast(Metrics, read_object(finished_file(folder, run_folder.METRICS)))


def read_board(folder: Path) -> Board:
    """The board.json of a run folder."""
    return cast(Board, read_object(finished_file(folder, run_folder.BOARD)))


def read_answers(folder: Path) -> list[Answer]:
    """The answers.jsonl of a run folder."""
    return cast(list[Answer], _lines(finished_file(folder, run_folder.ANSWERS)))


def finished_file(folder: Path, name: str) -> Path:
    """The path of a file that is written when training ends."""
    path = folder / name
    if not path.is_file():
        raise UserError(f"{folder}: has no {name}, which is written when training ends")
    return path


def read_epochs(folder: Path) -> list[Epoch]:
    """The lines of a run folder's metrics.csv; none if it is not there."""
    path = folder / run_folder.METRICS_BY_EPOCH
    try:
        rows = csv.DictReader(_text(path).splitlines()) if path.is_file() else ()
        return [{column: finite(float(text)) if text else None for column, text in row.items()} for row in rows]
    except (ValueError, TypeError) as error:
        raise UserError(f"{path}: cannot be read: {first_line(error)}") from None


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object in a file."""
    return _object(path, _text(path))


def finite(value: object) -> float | None:
    """The number; None for null, nan, infinity and what is not a number."""
    if isinstance(value, int | float) and math.isfinite(value):
        return float(value)
    return None


def _lines(path: Path) -> list[dict[str, Any]]:
    """The JSON objects in a file, one per line; none if it is not there."""
    return [_object(path, line) for line in _text(path).split("\n") if line.strip()] if path.is_file() else []


def _object(path: Path, text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: cannot be read: {first_line(error)}") from None
    if not isinstance(found, dict):
        raise UserError(f"{path}: cannot be read: it holds no JSON object")
    return found


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read: {first_line(error)}") from None

"""The files of a run folder that the report tells of. Older run folders, and broken-off runs, lack some."""

import csv
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from qa_lm.errors import UserError
from qa_lm.reporting.wording import finite

COMMAND = "qa-lm train"
"""The first word of a run's command where the installed command started it."""
WORKERS = ("_submit.py", "default_worker.py")
"""The programs that submitit and Ray run a job in; their command lines do not say which job."""


@dataclass(frozen=True)
class RunFiles:
    """What was read; empty where a file is not there."""

    name: str
    """The last two parts of the folder's path: a date and a time, by default."""
    config: dict[str, Any]
    config_text: str
    """config.yaml as it stands."""
    metrics: dict[str, Any]
    epochs: list[dict[str, float | None]]
    """The lines of metrics.csv."""
    data_report: dict[str, Any]
    environment: dict[str, Any]
    answers: list[dict[str, Any]]
    board: dict[str, Any]
    ledger: dict[str, Any]
    has_picture: bool
    """Whether loss_curve.png is there."""


def read_run(folder: Path) -> RunFiles:
    """Read a run folder.

    Raises:
        UserError: it is none.
    """
    if not (folder / "config.yaml").is_file():
        raise UserError(f"{folder}: not a run folder, it has no config.yaml")
    config_text = (folder / "config.yaml").read_text(encoding="utf-8")
    return RunFiles(
        name="/".join(folder.resolve().parts[-2:]),
        config=yaml.safe_load(config_text) or {},
        config_text=config_text,
        metrics=_json(folder / "metrics.json"),
        epochs=read_epochs(folder / "metrics.csv"),
        data_report=_json(folder / "data_report.json"),
        environment=_json(folder / "environment.json"),
        answers=_json_lines(folder / "answers.jsonl"),
        board=_json(folder / "board.json"),
        ledger=_json(folder / "ledger_summary.json"),
        has_picture=(folder / "loss_curve.png").is_file(),
    )


def given_command(environment: dict[str, Any]) -> list[str]:
    """The command that environment.json keeps; empty where nobody typed it."""
    command = environment.get("command")
    parts = [str(part) for part in command] if isinstance(command, list) else []
    return [] if parts and parts[0] in WORKERS else parts


def training_program(environment: dict[str, Any]) -> list[str]:
    """What starts a training for someone who started the run of this environment.json."""
    return COMMAND.split() if given_command(environment)[:1] == [COMMAND] else ["python", "scripts/train.py"]


def read_epochs(path: Path) -> list[dict[str, float | None]]:
    """The lines of a metrics.csv; none if it is not there."""
    if not path.is_file():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return [{column: finite(float(text)) if text else None for column, text in row.items()} for row in rows]


def _json(path: Path) -> dict[str, Any]:
    return (json.loads(path.read_text(encoding="utf-8")) or {}) if path.is_file() else {}


def _json_lines(path: Path) -> list[dict[str, Any]]:
    if not path.is_file():
        return []
    with path.open(encoding="utf-8") as file:
        return [json.loads(line) for line in file if line.strip()]

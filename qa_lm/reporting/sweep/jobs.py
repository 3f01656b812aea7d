"""Read the jobs of a sweep from their folders: settings, results, learning curves, and how each ended.

Any file may be missing or incomplete, because a job failed or still runs. Such a job is a row of the report too; values
that its files lack are empty here.
"""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from qa_lm.errors import UserError
from qa_lm.reporting.run.command import given_command, training_program
from qa_lm.run.reader import Epoch, finite, read_epochs
from qa_lm.run.run_folder import CONFIG, ENVIRONMENT, JOB, JOB_LOG, METRICS, METRICS_BY_EPOCH, REPORT_HTML

MULTIRUN = "multirun.yaml"
"""Hydra's record of a sweep, in its folder."""
JOB_FILES = (CONFIG, METRICS, METRICS_BY_EPOCH, JOB, JOB_LOG)
"""A folder with one of these files belongs to a job."""
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""The fast loader if libyaml is installed: reading 200 configurations takes 0.3 s instead of 4 s."""


@dataclass(frozen=True)
class Job:
    """One run of a sweep."""

    name: str
    """Name of the job's folder."""
    state: str
    """As in job.json: finished, failed, interrupted, running or left; "unfinished" if nothing says."""
    settings: dict[str, Any]
    """Values of config.yaml by dotted key, in the order of the file."""
    overrides: list[str] | None
    """Overrides of this job, such as "optimizer.lr=0.003"; None if unknown."""
    metrics: dict[str, Any]
    """Content of metrics.json, unchecked: it may have nulls and values that are not numbers."""
    epochs: list[Epoch]
    """Rows of metrics.csv."""
    seconds: float | None
    """Wall-clock time; None if unknown."""
    error: str
    """Last line of job.log if the job did not finish, else empty."""

    @property
    def early_end(self) -> str:
        """Why training ended before the last epoch; empty if it did not."""
        if not self.metrics.get("stopped_early"):
            return ""
        if self.metrics.get("diverged"):
            return "diverged"
        return "recall reached" if self.recall_reached else "stopped early"

    @property
    def recall_reached(self) -> bool:
        """Whether the run had a target recall and reached it."""
        wanted, reached = finite(self.settings.get("stop_at_recall")), finite(self.metrics.get("final_train_recall"))
        return wanted is not None and reached is not None and reached >= wanted


@dataclass(frozen=True)
class SweepFiles:
    """The content of a sweep folder."""

    name: str
    """The last two parts of the folder's path."""
    jobs: list[Job]
    arguments: list[str]
    """Overrides of the whole sweep, such as "optimizer.lr=1e-3,3e-3"; empty if unknown."""
    program: list[str]
    """The program that starts a training, as it was called for the jobs."""


def read_sweep(folder: Path) -> SweepFiles:
    """Read a sweep folder. Jobs with numbers as names come first, in order, then the others by name.

    Raises:
        UserError: the folder is not a sweep folder.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder")
    if (folder / CONFIG).is_file():
        raise UserError(f"{folder}: is a run folder, not a sweep folder; the report of the run is {REPORT_HTML}")
    folders = [
        path for path in folder.iterdir() if path.is_dir() and any((path / name).is_file() for name in JOB_FILES)
    ]
    if not folders and not (folder / MULTIRUN).is_file():
        raise UserError(f"{folder}: not a sweep folder: it contains no job folder")
    folders.sort(key=lambda path: (not path.name.isdecimal(), [_part(text) for text in re.split(r"(\d+)", path.name)]))
    program = training_program(next((each for each in map(_environment, folders) if each), {}))
    name = "/".join(folder.resolve().parts[-2:])
    return SweepFiles(name, [_job(path) for path in folders], _arguments(folder, folders), program)


def plain(value: Any) -> Any:
    """Convert numbers in text to numbers: YAML 1.1 reads 5e-05, without a decimal point, as text."""
    if not isinstance(value, str):
        return value
    text = value.strip().strip("'\"")
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return {"true": True, "false": False, "null": None}.get(text.lower(), text)


def label(value: Any) -> str:
    """Format a setting as text, the same for all ways to write it: 3e-3 and 0.003, 10 and 10.0."""
    value = plain(value)
    if isinstance(value, bool) or value is None:
        return str(value).lower().replace("none", "null")
    if isinstance(value, float):
        return repr(int(value)) if value.is_integer() and abs(value) < 1e15 else repr(value)
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def _part(text: str) -> tuple[bool, int, str]:
    return (not text.isdecimal(), int(text) if text.isdecimal() else 0, text)


def _job(folder: Path) -> Job:
    metrics, record = _read(folder / METRICS, json.loads), _read(folder / JOB, json.loads)
    state = "finished" if metrics else str(record.get("state") or "unfinished")
    if state == "finished" and not metrics:
        state = "failed"  # without metrics.json, its results are unknown
    overrides = record.get("overrides")
    seconds = finite(metrics.get("seconds"))
    return Job(
        name=folder.name,
        state=state,
        settings=_flat(_read(folder / CONFIG, _yaml), ""),
        overrides=[str(each) for each in overrides] if isinstance(overrides, list) else _own_arguments(folder),
        metrics=metrics | logged if isinstance(logged := metrics.get("logged"), dict) else metrics,
        epochs=_epochs(folder),
        seconds=finite(record.get("seconds")) if seconds is None else seconds,
        error="" if state == "finished" else _last_line(folder / JOB_LOG),
    )


def _yaml(text: str) -> Any:
    return yaml.load(text, Loader=LOADER)


def _read(path: Path, load: Callable[[str], Any]) -> dict[str, Any]:
    try:
        content = load(path.read_text(encoding="utf-8", errors="replace"))
    except (OSError, ValueError, yaml.YAMLError):
        return {}
    return content if isinstance(content, dict) else {}


def _epochs(folder: Path) -> list[Epoch]:
    try:
        return read_epochs(folder)
    except UserError:  # an incomplete line
        return []


def _flat(content: dict[str, Any], prefix: str) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in content.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) and value else {f"{prefix}{key}": value}
    return flat


def _last_line(path: Path) -> str:
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
    except OSError:
        return ""
    return next((line.strip() for line in reversed(lines) if line.strip()), "")


def _environment(folder: Path) -> dict[str, Any]:
    return _read(folder / ENVIRONMENT, json.loads)


def _own_arguments(folder: Path) -> list[str] | None:
    """The overrides of a job that its own command started; None if unknown."""
    command = given_command(_environment(folder))
    return None if not command or {"-m", "--multirun"} & set(command) else [part for part in command if "=" in part]


def _arguments(folder: Path, jobs: list[Path]) -> list[str]:
    """The overrides of the whole sweep, from Hydra's multirun.yaml or from the command that a job recorded."""
    hydra = _read(folder / MULTIRUN, _yaml).get("hydra")
    overrides = hydra.get("overrides") if isinstance(hydra, dict) else None
    task = overrides.get("task") if isinstance(overrides, dict) else None
    if isinstance(task, list):
        return [str(each) for each in task]
    commands = (given_command(_environment(job)) for job in jobs)
    command: list[str] = next((each for each in commands if {"-m", "--multirun"} & set(each)), [])
    return [part for part in command if "=" in part]

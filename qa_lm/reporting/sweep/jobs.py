"""The jobs of a sweep as their folders have them: settings, outcome, curves, and how each ended.

Every file may be missing, or broken off in the middle: a job that failed, or still runs, is a line of the report and
never its end. What a file lacks is empty here.
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
"""A folder with one of these is a job's."""
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""The fast one where there is libyaml: reading 200 configurations takes 0.3 s and not 4 s."""
STATES = ("finished", "failed", "interrupted", "running", "left")
"""What job.json may say; "unfinished" is what is known of a job without it that has no metrics.json."""


@dataclass(frozen=True)
class Job:
    """One run of a sweep."""

    name: str
    """The name of its folder."""
    state: str
    """One of `STATES`, or "unfinished"."""
    settings: dict[str, Any]
    """config.yaml by dotted key, in the file's order."""
    overrides: list[str] | None
    """What was given for this job, such as "optimizer.lr=0.003"; None where it is not known."""
    metrics: dict[str, Any]
    """metrics.json; null and what is not a number are left to the reader."""
    epochs: list[Epoch]
    """The lines of metrics.csv."""
    seconds: float | None
    """Seconds that it took."""
    error: str
    """The last line of job.log, where the job did not finish."""

    @property
    def early_end(self) -> str:
        """Why training ended before its last epoch, in words; empty if it did not."""
        if not self.metrics.get("stopped_early"):
            return ""
        wanted, reached = finite(self.settings.get("stop_at_recall")), finite(self.metrics.get("final_train_recall"))
        if self.metrics.get("diverged"):
            return "diverged"
        return "recall reached" if wanted is not None and reached is not None and reached >= wanted else "stopped early"


@dataclass(frozen=True)
class SweepFiles:
    """A sweep folder, read."""

    name: str
    """The last two parts of its path."""
    jobs: list[Job]
    arguments: list[str]
    """What was given for the whole sweep, such as "optimizer.lr=1e-3,3e-3"; empty where it is not known."""
    program: list[str]
    """What starts a training, as the jobs were started."""


def read_sweep(folder: Path) -> SweepFiles:
    """Read a sweep folder; its jobs come by their numbers, then by name.

    Raises:
        UserError: it is none.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder")
    if (folder / CONFIG).is_file():
        raise UserError(f"{folder}: is the folder of one run, not of a sweep; its report is {REPORT_HTML}")
    found = [path for path in folder.iterdir() if path.is_dir() and any((path / name).is_file() for name in JOB_FILES)]
    if not found and not (folder / MULTIRUN).is_file():
        raise UserError(f"{folder}: not a sweep folder, no folder in it is a job's")
    found.sort(key=lambda path: (not path.name.isdecimal(), [_part(text) for text in re.split(r"(\d+)", path.name)]))
    program = training_program(next((each for each in map(_environment, found) if each), {}))
    name = "/".join(folder.resolve().parts[-2:])
    return SweepFiles(name, [_job(path) for path in found], _arguments(folder, found), program)


def plain(value: Any) -> Any:
    """A value with numbers as numbers: YAML 1.1 takes 5e-05, which has no point, for text."""
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
    """A setting as text, the same for all ways to write it: 3e-3 and 0.003, 10 and 10.0."""
    value = plain(value)
    if isinstance(value, bool) or value is None:
        return str(value).lower().replace("none", "null")
    if isinstance(value, float):
        return repr(int(value)) if value.is_integer() and abs(value) < 1e15 else repr(value)
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def _part(text: str) -> tuple[bool, int, str]:
    return (not text.isdecimal(), int(text) if text.isdecimal() else 0, text)


def _job(folder: Path) -> Job:
    metrics, told = _read(folder / METRICS, json.loads), _read(folder / JOB, json.loads)
    state = "finished" if metrics else str(told.get("state") or "unfinished")
    if state == "finished" and not metrics:
        state = "failed"  # without its metrics.json nothing is known of how it went
    given = told.get("overrides")
    seconds = finite(metrics.get("seconds"))
    return Job(
        name=folder.name,
        state=state,
        settings=_flat(_read(folder / CONFIG, _yaml), ""),
        overrides=[str(each) for each in given] if isinstance(given, list) else _own_arguments(folder),
        metrics=metrics,
        epochs=_epochs(folder),
        seconds=finite(told.get("seconds")) if seconds is None else seconds,
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
    except UserError:  # a line that is broken off
        return []


def _flat(content: dict[str, Any], prefix: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in content.items():
        found |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) and value else {f"{prefix}{key}": value}
    return found


def _last_line(path: Path) -> str:
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
    except OSError:
        return ""
    return next((line.strip() for line in reversed(lines) if line.strip()), "")


def _command(folder: Path) -> list[str]:
    return given_command(_environment(folder))


def _environment(folder: Path) -> dict[str, Any]:
    return _read(folder / ENVIRONMENT, json.loads)


def _own_arguments(folder: Path) -> list[str] | None:
    """The arguments of a job that was started by a command of its own."""
    command = _command(folder)
    return None if not command or {"-m", "--multirun"} & set(command) else [part for part in command if "=" in part]


def _arguments(folder: Path, jobs: list[Path]) -> list[str]:
    """Of the whole sweep, from Hydra's multirun.yaml or from the command that a job has kept."""
    hydra = _read(folder / MULTIRUN, _yaml).get("hydra")
    overrides = hydra.get("overrides") if isinstance(hydra, dict) else None
    task = overrides.get("task") if isinstance(overrides, dict) else None
    if isinstance(task, list):
        return [str(each) for each in task]
    commands = (_command(job) for job in jobs)
    found: list[str] = next((each for each in commands if {"-m", "--multirun"} & set(each)), [])
    return [part for part in found if "=" in part]

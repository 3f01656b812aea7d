"""The names in a run folder, and how its files are written: whole or not at all."""

import contextlib
import json
import os
import re
import shutil
import tempfile
from pathlib import Path
from typing import Any

CONFIG = "config.yaml"
METRICS_BY_EPOCH = "metrics.csv"
METRICS = "metrics.json"
ANSWERS = "answers.jsonl"
ENVIRONMENT = "environment.json"
DATA_REPORT = "data_report.json"
SPLIT = "split.csv"
BOARD = "board.json"
LEDGER = "ledger.parquet"
LEDGER_SUMMARY = "ledger_summary.json"
BAD_BATCHES = "bad_batches.jsonl"
LOSS_CURVE = "loss_curve.png"
REPORT_MARKDOWN = "report.md"
REPORT_HTML = "report.html"
CHECKPOINTS = "checkpoints"
MODEL = "model"
PROFILE = "profile"

ELSEWHERE = ("best.ckpt", "last.ckpt", "previous.ckpt", "manifest.json", ".holder.json", "probe")
"""Other names that are written here, of `qa_lm.training.checkpointing.checkpoints`, `manifest` and `run_lock`."""
WRITTEN = "|".join(
    re.escape(name)
    for name in (
        *(CONFIG, METRICS_BY_EPOCH, METRICS, ANSWERS, ENVIRONMENT, DATA_REPORT, SPLIT, BOARD, LEDGER, LEDGER_SUMMARY),
        *(BAD_BATCHES, LOSS_CURVE, REPORT_MARKDOWN, REPORT_HTML, MODEL, *ELSEWHERE),
    )
)
LEFTOVER = re.compile(rf"\.(?:{WRITTEN})\.(?:\d+|[a-z0-9_]{{8}})(?:\.before)?")
"""A file or folder beside its target: a hidden name that ends with a process's number or `tempfile`'s letters."""


def write_text(path: Path, text: str) -> None:
    """Write beside the target and rename: a reader sees the old file or the new one, never half of one."""
    with tempfile.NamedTemporaryFile(
        "w", encoding="utf-8", newline="", dir=path.parent, prefix=f".{path.name}.", delete=False
    ) as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.chmod(file.name, 0o644)
    os.replace(file.name, path)


def clear_leftovers(folder: Path) -> None:
    """Remove what writes that were killed left beside their targets, and nothing of anyone else's.

    Only whoever holds the run may call it.
    """
    for where in (folder, folder / CHECKPOINTS):
        for path in where.glob(".*.*"):
            if not LEFTOVER.fullmatch(path.name):
                continue
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Make a file, or the names in a folder, outlive a power cut; some systems can do that for files alone."""
    with contextlib.suppress(OSError) if path.is_dir() else contextlib.nullcontext():
        number = os.open(path, os.O_RDONLY)
        try:
            os.fsync(number)
        finally:
            os.close(number)


def write_json(path: Path, content: Any) -> None:
    """Write as indented JSON; nan and infinity, which JSON has not, become null."""
    write_text(path, json.dumps(_finite(content), indent=2, ensure_ascii=False) + "\n")


def write_jsonl(path: Path, records: list[dict[str, Any]]) -> None:
    """Write one JSON object per line."""
    write_text(path, "".join(json.dumps(_finite(record), ensure_ascii=False) + "\n" for record in records))


def _finite(content: Any) -> Any:
    if isinstance(content, float) and (content != content or content in (float("inf"), float("-inf"))):
        return None
    if isinstance(content, dict):
        return {key: _finite(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [_finite(value) for value in content]
    return content

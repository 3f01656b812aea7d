"""The names in a run folder, and what killed writes leave in it."""

import re
import shutil
from pathlib import Path

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
LOGGERS = "loggers.json"
"""The ids by which logging services know the run."""
LOCK, HOLDER = ".lock", ".holder.json"

BEST, LAST, PREVIOUS, MANIFEST = "best.ckpt", "last.ckpt", "previous.ckpt", "manifest.json"
"""In the folder of the checkpoints."""
PROBE_FILE = "probe"
"""A file that is written beside the checkpoints to see whether they can be."""

JOB, JOB_LOG = "job.json", "job.log"
"""In the run folder of a sweep's job: its record, and what it printed."""

WRITTEN = "|".join(
    re.escape(name)
    for name in (
        *(CONFIG, METRICS_BY_EPOCH, METRICS, ANSWERS, ENVIRONMENT, DATA_REPORT, SPLIT, BOARD, LEDGER, LEDGER_SUMMARY),
        *(BAD_BATCHES, LOGGERS, LOSS_CURVE, REPORT_MARKDOWN, REPORT_HTML, MODEL, HOLDER),
        *(BEST, LAST, PREVIOUS, MANIFEST, PROBE_FILE),
    )
)
LEFTOVER = re.compile(rf"\.(?:{WRITTEN})\.(?:\d+|[a-z0-9_]{{8}})(?:\.before)?")
"""A file or folder beside its target: a hidden name that ends with a process's number or `tempfile`'s letters."""


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

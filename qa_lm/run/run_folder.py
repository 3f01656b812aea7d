"""Names of the files in a run folder, and removal of the leftovers of interrupted writes."""

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
ADAPTER = "adapter"
"""The LoRA adapter, as peft loads it."""
KNOWN_BEFORE = "known_before.parquet"
"""Which pairs a pretrained model knew before training."""
GENERAL_ANSWERS = "general_answers.jsonl"
"""Its answers to general questions, before and after training."""
PROFILE = "profile"
LOGGERS = "loggers.json"
"""The ids by which logging services know the run."""
LOCK, HOLDER = ".lock", ".holder.json"

BEST, LAST, PREVIOUS, MANIFEST = "best.ckpt", "last.ckpt", "previous.ckpt", "manifest.json"
"""Files in the folder of the checkpoints."""
PROBE_FILE = "probe"
"""A file written next to the checkpoints to test whether the folder is writable."""

METRICS_COLUMNS = (
    *("epoch", "step", "train_loss", "val_loss", "val_exact_match", "val_bits_per_answer_byte", "train_recall"),
    "learning_rate",
)
"""Columns that each metrics.csv has; whatever else was logged has a column of its own name."""

JOB, JOB_LOG = "job.json", "job.log"
"""Files in the run folder of a sweep's job: its record and its output."""

WRITTEN = "|".join(
    re.escape(name)
    for name in (
        *(CONFIG, METRICS_BY_EPOCH, METRICS, ANSWERS, ENVIRONMENT, DATA_REPORT, SPLIT, BOARD, LEDGER, LEDGER_SUMMARY),
        *(BAD_BATCHES, LOGGERS, LOSS_CURVE, REPORT_MARKDOWN, REPORT_HTML, MODEL, ADAPTER, HOLDER),
        *(KNOWN_BEFORE, GENERAL_ANSWERS),
        *(BEST, LAST, PREVIOUS, MANIFEST, PROBE_FILE),
    )
)
LEFTOVER = re.compile(rf"\.(?:{WRITTEN})\.(?:\d+|[a-z0-9_]{{8}})(?:\.before)?")
"""A temporary file or folder next to its target: a hidden name that ends with a process id or `tempfile`'s suffix."""


def remove_leftovers(folder: Path) -> None:
    """Remove temporary files that interrupted writes left next to their targets.

    The caller must hold the lock of the run.
    """
    for where in (folder, folder / CHECKPOINTS):
        for path in where.glob(".*.*"):
            if not LEFTOVER.fullmatch(path.name):
                continue
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)

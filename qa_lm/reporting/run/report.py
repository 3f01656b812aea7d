"""report.html and report.md: all that a run came to, on one page that needs nothing outside itself.

- Both pages show the same content, gathered once from the files of the run folder.
- Whatever a template prints is escaped: text of pairs, models and file names can be hostile (`pages`).
- The HTML page also forbids scripts and outside addresses by its own Content-Security-Policy.
"""

from pathlib import Path
from typing import Any

from qa_lm.reporting.markdown_tables import MARKS, markdown_tables
from qa_lm.reporting.pages import html_page, markdown_page
from qa_lm.reporting.run.board import (
    CURVE_SHOWN,
    board_rows,
    by_split,
    confidence_words,
    coverage_points,
    stopping_rows,
    thinned,
    worst_pairs,
)
from qa_lm.reporting.run.charts import coverage_chart, loss_chart, recall_chart
from qa_lm.reporting.run.facts import again, environment_facts, run_facts, source_names
from qa_lm.reporting.run.files import RunFiles, read_run, training_program
from qa_lm.reporting.run.next_steps import next_arguments, quoted, why_little
from qa_lm.reporting.run.samples import sample_answers
from qa_lm.reporting.run.verdict import verdict
from qa_lm.reporting.wording import decimal, percent, whole
from qa_lm.run.atomic import write_text

EPOCHS_SHOWN = 20


def write_report(run_folder: Path) -> Path:
    """Write report.md and report.html into the run folder; returns the path of report.html.

    Raises:
        UserError: the folder holds no run.
    """
    run = read_run(run_folder)
    content = _content(run)
    write_text(run_folder / "report.md", markdown_page("report.md.j2", content | markdown_tables(content)))
    page = run_folder / "report.html"
    write_text(page, html_page("report.html.j2", content))
    return page


def _content(run: RunFiles) -> dict[str, Any]:
    """What both templates show."""
    command, notes = again(run)
    charts = [loss_chart(run), recall_chart(run)]
    return {
        "run": run,
        "marks": MARKS,
        "title": f"What the model learnt from {source_names(run)}",
        "verdict": verdict(run),
        "next": quoted([*training_program(run.environment), *next_arguments(run)]) if why_little(run) else "",
        "trained": run_facts(run),
        "charts": [chart for chart in charts if chart],
        "epochs": _epoch_rows(run),
        "board": by_split(board_rows(run.board)),
        "stopping": stopping_rows(run.board),
        "confidence": confidence_words(run.board),
        "coverage_chart": coverage_chart(run),
        "coverage": thinned(coverage_points(run.board), CURVE_SHOWN),
        "samples": sample_answers(run.answers),
        "worst": worst_pairs(run.ledger),
        "data_warnings": run.data_report.get("warnings") or [],
        "board_warnings": run.board.get("warnings") or [],
        "environment": environment_facts(run),
        "command": command,
        "command_notes": notes,
    }


def _epoch_rows(run: RunFiles) -> list[list[str]]:
    """Epoch, train loss, validation loss, recall, exact match; of many epochs some, with the best and the last."""
    best = run.metrics.get("best_epoch")
    chosen = thinned(run.epochs, EPOCHS_SHOWN)
    rows = [row for row in run.epochs if row in chosen or (best is not None and row.get("epoch") == best)]
    return [
        [
            whole(row.get("epoch")) + (" (best)" if best is not None and row.get("epoch") == best else ""),
            decimal(row.get("train_loss")),
            decimal(row.get("val_loss")),
            percent(row.get("train_recall")),
            percent(row.get("val_exact_match")),
        ]
        for row in rows
    ]

"""Write report.html and report.md: the results of a run, each on one self-contained page.

Both pages show the same content, gathered once from the files of the run folder. Templates escape what they print
(`pages`), and the HTML page forbids scripts and external addresses by its Content-Security-Policy.
"""

from pathlib import Path
from typing import Any

from qa_lm.reporting.card import write_card
from qa_lm.reporting.pages import write_pages
from qa_lm.reporting.run.before import before_sentences, before_table, general_table
from qa_lm.reporting.run.board import (
    CURVE_SHOWN,
    board_rows,
    by_split,
    confidence_content,
    coverage_points,
    thin_out,
    worst_pairs,
)
from qa_lm.reporting.run.charts import coverage_chart, logged_charts, loss_chart, recall_chart
from qa_lm.reporting.run.command import training_program
from qa_lm.reporting.run.facts import environment_facts, reproduction, run_facts, source_names
from qa_lm.reporting.run.known import known_sentences, modes_table, robustness_table
from qa_lm.reporting.run.next_steps import next_arguments, quoted, why_little
from qa_lm.reporting.run.samples import sample_answers
from qa_lm.reporting.run.tables import (
    board_table,
    coverage_table,
    epochs_table,
    stopping_table,
    worst_table,
)
from qa_lm.reporting.run.verdict import verdict
from qa_lm.run.reader import RunFiles, read_run
from qa_lm.run.run_folder import MODEL, REPORT_HTML


def write_report(run_folder: Path) -> Path:
    """Write report.md and report.html into the run folder, and the model card; return the path of report.html.

    Raises:
        UserError: the folder is not a run folder.
    """
    run = read_run(run_folder)
    if run.metrics and (run_folder / MODEL).is_dir():
        write_card(run, run_folder)
    return write_pages(run_folder / REPORT_HTML, "report.j2", _content(run))


def _title(run: RunFiles) -> str:
    words = f"hat the model learnt from {source_names(run)}"
    name = run.config.get("name")
    return f"{name}: w{words}" if name else f"W{words}"


def _content(run: RunFiles) -> dict[str, Any]:
    """The variables of both templates."""
    command, notes = reproduction(run)
    rows, confidence = board_rows(run.board), run.board["confidence"]
    board, general = by_split(rows), run.board.get("general")
    known = run.board.get("known_answers")
    tags = ", ".join(map(str, run.config.get("tags") or []))
    charts = [loss_chart(run), recall_chart(run), *logged_charts(run)]
    return {
        "run": run,
        "title": _title(run),
        "run_name": f"Run {run.name}" + (f", tagged {tags}" if tags else ""),
        "verdict": verdict(run),
        "next": quoted([*training_program(run.environment), *next_arguments(run)]) if why_little(run) else "",
        "trained": run_facts(run),
        "charts": [chart for chart in charts if chart],
        "epochs": epochs_table(run),
        "board": board,
        "board_table": board_table(board),
        "before": before_table(rows),
        "before_sentences": before_sentences(run.board),
        "general": general_table(general) if general else None,
        "known": known,
        "modes": modes_table(known) if known else None,
        "robustness": robustness_table(known) if known else None,
        "known_sentences": known_sentences(known, rows) if known else [],
        "stopping": stopping_table(run.board["stopping"]),
        "confidence": confidence_content(confidence),
        "coverage_chart": coverage_chart(run),
        "coverage": coverage_table(thin_out(coverage_points(confidence), CURVE_SHOWN)),
        "samples": sample_answers(run.answers),
        "worst": worst_table(worst_pairs(run.ledger)),
        "environment": environment_facts(run),
        "command": command,
        "command_notes": notes,
    }

"""Write results.csv, report.md and report.html of a sweep.

The page is self-contained, and forbids scripts and external addresses. Templates escape what they print (`pages`).
"""

import csv
import io
import re
import textwrap
from pathlib import Path
from typing import Any

from qa_lm.reporting.pages import write_pages
from qa_lm.reporting.sweep.charts import knob_charts
from qa_lm.reporting.sweep.curves import learning_curves
from qa_lm.reporting.sweep.findings import Findings, compare_jobs
from qa_lm.reporting.sweep.heat import heat_maps
from qa_lm.reporting.sweep.jobs import read_sweep
from qa_lm.reporting.sweep.next import next_steps
from qa_lm.reporting.sweep.tables import jobs_table, knobs_table, settings_table
from qa_lm.reporting.sweep.verdict import conclusion, determined_text, spent
from qa_lm.reporting.tables import Table
from qa_lm.reporting.wording import list_names
from qa_lm.run.atomic import write_text
from qa_lm.run.reader import finite

RESULTS, REPORT = "results.csv", "report"
ROWS_PRINTED = 20
ROWS_OPEN = 24
"""Tables on the page with more rows than this show only the first `ROWS_FIRST` until they are expanded."""
ROWS_FIRST = 12
WIDTH = 120


def write_sweep_report(folder: Path, metric: str | None = None, mode: str | None = None) -> str:
    """Write results.csv and the report into the sweep folder, and return what to print.

    The report is report.html and report.md. With a metric or mode, its name includes them, such as report-recall.html.

    Args:
        folder: the sweep folder, with a folder for each job.
        metric: a name of metrics.json to compare by; None for the one that the runs monitored.
        mode: "min" or "max"; None to infer it from the metric's name.

    Raises:
        UserError: the folder is not a sweep folder, or no job has this metric.
    """
    findings = compare_jobs(read_sweep(folder), metric, mode)
    content = _content(findings)
    write_text(folder / RESULTS, results_csv(findings))
    name = "-".join([REPORT, *(re.sub(r"[^\w.]+", "_", each) for each in (metric, mode) if each)])
    page = write_pages(folder / f"{name}.html", "sweep.j2", content)
    return "\n".join([*_printed(findings, content), "", str(page)])


def results_csv(findings: Findings) -> str:
    """A row per job: its knobs, how it ended, and every number of its metrics.json."""
    jobs, design = findings.sweep.jobs, findings.design
    names = sorted(
        {name for job in jobs for name, value in job.metrics.items() if finite(value) is not None} - {"seed"}
    )
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["job", "state", "seed", *(knob.key for knob in design.knobs), *names, "error"])
    for job in jobs:
        place = design.places.get(job.name, ("",) * len(design.knobs))
        values = [job.metrics.get(name) if finite(job.metrics.get(name)) is not None else "" for name in names]
        writer.writerow([job.name, job.state, design.seeds.get(job.name, ""), *place, *values, job.error])
    return text.getvalue()


def _content(findings: Findings) -> dict[str, Any]:
    """The variables of both templates."""
    outcome, knobs = findings.objective.outcome, findings.design.knobs
    swept = list_names([knob.key for knob in knobs])
    better = "smaller" if outcome.smaller_is_better else "larger"
    return {
        "findings": findings,
        "title": f"Results of the sweep of {swept}" if knobs else "Results of the sweep",
        "conclusion": conclusion(findings),
        "steps": next_steps(findings),
        "objective": f"{outcome.title} ({outcome.name} of metrics.json, {better} is better): {findings.objective.why}",
        "settings": settings_table(findings) if len(findings.groups) > 1 or findings.repeated else None,
        "comparisons": table if findings.ranked and (table := knobs_table(findings)).rows else None,
        "jobs": jobs_table(findings),
        "charts": knob_charts(findings) + heat_maps(findings),
        "curves": learning_curves(findings),
        "determined": determined_text(findings),
        "spent": spent(findings.sweep.jobs),
        "rows_open": ROWS_OPEN,
        "rows_first": ROWS_FIRST,
    }


def _printed(findings: Findings, content: dict[str, Any]) -> list[str]:
    lines = [line for sentence in content["conclusion"] for line in textwrap.wrap(sentence, WIDTH)]
    table: Table | None = content["settings"]
    if table:
        lines += ["", *table.lines(ROWS_PRINTED, len(findings.design.knobs or [""]) + 6)]
        if len(table.rows) > ROWS_PRINTED:
            lines.append(f"... and {len(table.rows) - ROWS_PRINTED} more settings")
    for step in content["steps"]:
        lines += ["", *textwrap.wrap(f"Next: {step.text}", WIDTH), *(f"  {command}" for command in step.commands)]
    return lines

"""Write the report of a sweep: `python scripts/sweep_report.py SWEEP_FOLDER [--metric NAME] [--mode min|max]`.

Writes results.csv, report.md and report.html into the sweep folder (with --metric recall: report-recall.md and
report-recall.html), and prints the conclusion.
"""

import argparse
from pathlib import Path

from qa_lm.commands.exit_codes import exit_code


def main(arguments: list[str] | None = None) -> int:
    """Read, write and print. Returns the exit code."""
    options = _parser().parse_args(arguments)
    # Imported late, so that invalid options are reported at once.
    from qa_lm.reporting.sweep.report import write_sweep_report

    return exit_code(lambda: print(write_sweep_report(options.sweep, options.metric, options.mode), flush=True))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description="Compare the jobs of a sweep, and test which differences are significant."
    )
    parser.add_argument("sweep", type=Path, metavar="SWEEP_FOLDER", help="a folder with a run folder for each job")
    parser.add_argument(
        "--metric", metavar="NAME", help="metric of metrics.json to compare by (default: the monitored one)"
    )
    parser.add_argument("--mode", choices=("min", "max"), help="whether a smaller or a larger value is better")
    return parser

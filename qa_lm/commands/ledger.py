"""List the trained pairs to check: `python scripts/ledger.py RUN_FOLDER [--worst 20] [--never | --all] [--json]`.

The history of each trained pair is in the run's ledger.parquet. Pairs are listed that contradict others, were never
learnt, or whose answer is unlike the answers to similar questions.
"""

import argparse
import json
import textwrap
from pathlib import Path
from typing import Any

from qa_lm.commands.exit_codes import exit_code
from qa_lm.errors import UserError, sanitize
from qa_lm.reporting.tables import align_rows, display_width, truncate

QUESTION, ANSWER, PLACE = 40, 30, 28
"""Maximum widths of texts, in terminal columns."""


def main(arguments: list[str] | None = None) -> int:
    """Read and print. Returns the exit code."""
    options = _parser().parse_args(arguments)
    return exit_code(lambda: print(_shown(options), flush=True))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="List trained pairs that may be wrong, with the reason.")
    parser.add_argument("run", type=Path, metavar="RUN_FOLDER", help="the folder that train.py printed last")
    parser.add_argument("--worst", type=int, default=20, metavar="N", help="number of pairs (default 20)")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--never", action="store_true", help="only pairs that were never learnt")
    which.add_argument("--all", action="store_true", help="also pairs without a reason to check them")
    parser.add_argument("--json", action="store_true", help="print each pair as a line of JSON, with all its data")
    return parser


def _shown(options: argparse.Namespace) -> str:
    if options.worst < 1:
        raise UserError("--worst must be at least 1")
    # Imported late, so that invalid options are reported at once.
    from qa_lm.ledger.file import LedgerFilter, read_summary, read_worst

    which = (
        LedgerFilter.never_learnt if options.never else LedgerFilter.every if options.all else LedgerFilter.suspicious
    )
    rows = read_worst(options.run, options.worst, which)
    if options.json:
        return "\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
    return "\n".join([*_table(rows), _in_words(read_summary(options.run))])


def _table(rows: list[dict[str, Any]]) -> list[str]:
    if not rows:
        return ["No pair to check.", ""]
    heading = ("place", "question", "answer", "learnt at", "forgotten", "last loss", "why")
    return [*align_rows([heading, *map(_line, rows)]), ""]


def _line(row: dict[str, Any]) -> tuple[str, ...]:
    return (
        _end(sanitize(row["place"]), PLACE),
        truncate(row["question"], QUESTION),
        truncate(row["answer"], ANSWER),
        "never" if row["learnt_at"] is None else str(row["learnt_at"]),
        str(row["forgotten"]),
        "" if row["last_loss"] is None else f"{row['last_loss']:.3f}",
        sanitize(row["why"]),
    )


def _end(place: str, width: int) -> str:
    """Shorten a place to its end, which has the line number."""
    kept = place
    while display_width(kept) > width - 3 and display_width(place) > width:
        kept = kept[1:]
    return place if kept == place else f"...{kept}"


def _in_words(summary: dict[str, Any]) -> str:
    known = summary.get("learnt_known_before")
    within = f"{summary['epochs']} epochs"
    if type(known) is int:
        within += f" ({known:,} of them known before training)"
    counts = (
        f"{summary['learnt']:,} of {summary['pairs']:,} trained pairs were learnt in {within}; "
        f"{summary['never_learnt']:,} never, {summary['forgotten']:,} were forgotten at least once."
    )
    note = summary.get("note")
    return "\n".join([counts, *textwrap.wrap(sanitize(note), 120)]) if isinstance(note, str) and note else counts

"""ledger.parquet and ledger_summary.json: the history of each trained pair, written when a run ends, read by
scripts/ledger.py."""

import heapq
import json
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from qa_lm.data.pairs import Pair
from qa_lm.data.quality.outvoted import MOST_PAIRS, outvoted
from qa_lm.data.table import BATCH, PairTable
from qa_lm.errors import UserError, first_line
from qa_lm.ledger.histories import Histories, high, histories, suspicion
from qa_lm.run import run_folder
from qa_lm.run.atomic import replacing, write_json

WORST = 20
"""Pairs that the summary lists."""
FEWEST = 200
"""Trained pairs below which only contradictions are a reason. Measured in three files with 3% wrong answers: among
200 pairs and more, half of those called unlike are wrong ones; among 20 to 100, a third in two of the files."""
RELATED = 0.3
"""Median accord of a file from which similar questions have similar answers. Measured with 3% wrong answers: of the
pairs called unlike 46% to 100% are wrong ones where it is 0.35 or more; where it is 0.1 or less 3% to 18%, little more
than by chance."""
UNLIKE = 0.1
"""Accord, as a share of that median, below which an answer is unlike the answers to similar questions."""
RARE = 0.05
"""Share of the trained pairs up to which those that were never learnt stand out."""
SCHEMA = pa.schema(
    {
        "place": pa.string(),
        "question": pa.string(),
        "answer": pa.string(),
        "losses": pa.list_(pa.float32()),
        "exact": pa.list_(pa.bool_()),
        "learnt_at": pa.int32(),
        "first_exact": pa.int32(),
        "forgotten": pa.int32(),
        "last_loss": pa.float32(),
        "mean_loss": pa.float32(),
        "suspicion": pa.float32(),
        "why": pa.string(),
    }
)
LISTED = ("place", "question", "answer", "learnt_at", "forgotten", "last_loss", "why")
"""Columns of the summary's list."""

COUNTS = ("pairs", "learnt", "never_learnt", "forgotten", "epochs")
"""Whole numbers of the summary."""


@dataclass(frozen=True)
class _Findings:
    """What is known of the trained pairs, one value each."""

    table: PairTable
    trained: np.ndarray
    losses: Sequence[np.ndarray]
    exact: Sequence[np.ndarray]
    history: Histories
    suspicion: np.ndarray
    reasons: list[tuple[np.ndarray, str]]
    """Words, and whether they are true of each pair."""
    details: list[tuple[np.ndarray, str]]
    """The same; they add to a reason, but are none themselves: in every file some pairs are learnt last."""
    outvoted: dict[int, tuple[str, int]]
    note: str
    """What cannot be told from these pairs; empty if all can."""

    def why(self, number: int) -> str:
        """Why this one of the trained pairs is suspicious; empty if it is not."""
        case = self.outvoted.get(int(self.trained[number]))
        words = [f"contradicts {case[0]} at {self.table.place(case[1])}"] if case else []
        words += [word for true, word in self.reasons if true[number]]
        return ", ".join([*words, *(word for true, word in self.details if true[number])]) if words else ""


def write_ledger(
    folder: Path, table: PairTable, trained: np.ndarray, losses: Sequence[np.ndarray], exact: Sequence[np.ndarray]
) -> None:
    """Write both files; each appears whole.

    Args:
        folder: the run folder.
        table: all pairs.
        trained: places of the trained ones, ascending.
        losses: for each epoch the loss of each, as `Ledger` keeps them.
        exact: for each epoch whether each was exact, likewise.
    """
    found = _find(table, trained, losses, exact)
    path = folder / run_folder.LEDGER
    borders = np.searchsorted(trained, np.arange(0, len(table) + BATCH, BATCH)).tolist()
    with replacing(path) as beside, pq.ParquetWriter(beside, SCHEMA) as writer:
        for texts, (begin, end) in zip(table.batches(), pairwise(borders), strict=True):
            if begin < end:
                writer.write_batch(_record_batch(found, texts, begin, end))
    summary = {
        "pairs": len(trained),
        "learnt": int((found.history.learnt_at > 0).sum()),
        "never_learnt": int((found.history.learnt_at == 0).sum()),
        "forgotten": int((found.history.forgotten > 0).sum()),
        "epochs": len(losses),
        "near_duplicates": "looked for" if len(trained) <= MOST_PAIRS else f"not looked for above {MOST_PAIRS:,} pairs",
        "note": found.note,
        "worst": [{name: row[name] for name in LISTED} for row in read_worst(folder, WORST)],
    }
    write_json(folder / run_folder.LEDGER_SUMMARY, summary)


def _find(
    table: PairTable, trained: np.ndarray, losses: Sequence[np.ndarray], exact: Sequence[np.ndarray]
) -> _Findings:
    from qa_lm.data.quality.accord import accord_of  # scipy and datasketch take a second

    history = histories(losses, exact, len(trained))
    against = outvoted(table, trained)
    accord = accord_of(table, trained)
    suspicious = suspicion(history.mean_loss, accord, np.isin(trained, list(against)))
    enough = len(trained) >= FEWEST
    usual = float(np.median(accord)) if enough else 0.0
    related = usual >= RELATED
    never = history.learnt_at == 0
    reasons = [
        (never & (enough and float(never.mean()) <= RARE), "never learnt"),
        (high(-accord) & (accord < UNLIKE * usual) & related, "unlike the answers to similar questions"),
    ]
    details = [
        (~never & high(np.where(never, len(losses) + 1, history.learnt_at)), "learnt late"),
        (high(history.mean_loss), "high loss"),
    ]
    note = _note(len(trained), related)
    return _Findings(table, trained, losses, exact, history, suspicious, reasons, details, against, note)


def _note(pairs: int, related: bool) -> str:
    """What cannot be told from so many pairs."""
    if pairs < FEWEST:
        return (
            f"Fewer than {FEWEST} pairs were trained, too few to tell wrong answers from hard ones: only "
            "contradictions are listed."
        )
    if not related:
        return (
            "In this file similar questions do not have similar answers, so an answer that belongs to another question "
            "cannot be told: only contradictions and pairs that were never learnt are listed."
        )
    return ""


def _record_batch(found: _Findings, texts: list[Pair], begin: int, end: int) -> pa.RecordBatch:
    """The trained pairs from `begin` to `end`, which all stand in one batch of the table."""
    indices = found.trained[begin:end]
    sources, lines = found.table.numbers("source")[indices], found.table.numbers("line")[indices]
    pairs = [texts[index % BATCH] for index in indices]
    history = Histories(*(values[begin:end] for values in found.history))
    losses, exact = (
        np.stack([epoch[begin:end] for epoch in epochs], 1) if epochs else np.zeros((end - begin, 0))
        for epochs in (found.losses, found.exact)
    )
    not_trained = exact < 0
    columns = {
        "place": [f"{found.table.sources[source]}:{line}" for source, line in zip(sources, lines, strict=True)],
        "question": [pair.question for pair in pairs],
        "answer": [pair.answer for pair in pairs],
        "losses": _lists(losses.astype(np.float32), not_trained),
        "exact": _lists(exact > 0, not_trained),
        "learnt_at": pa.array(history.learnt_at, mask=history.learnt_at == 0),
        "first_exact": pa.array(history.first_exact, mask=history.first_exact == 0),
        "forgotten": history.forgotten,
        "last_loss": pa.array(history.last_loss, mask=not_trained.all(axis=1)),
        "mean_loss": pa.array(history.mean_loss, mask=not_trained.all(axis=1)),
        "suspicion": found.suspicion[begin:end].astype(np.float32),
        "why": [found.why(number) for number in range(begin, end)],
    }
    return pa.record_batch(columns, schema=SCHEMA)


def _lists(values: np.ndarray, unknown: np.ndarray) -> pa.ListArray:
    """A list for each row of (pairs, epochs), with null where a value is unknown."""
    pairs, epochs = values.shape
    offsets = pa.array(np.arange(pairs + 1) * epochs, pa.int32())
    return pa.ListArray.from_arrays(offsets, pa.array(values.ravel(), mask=unknown.ravel()))


class Which(StrEnum):
    """Which pairs of a ledger are meant."""

    suspicious = "suspicious"
    """Those with a reason to be."""
    never_learnt = "never_learnt"
    every = "every"


def read_worst(folder: Path, count: int, which: Which = Which.suspicious) -> list[dict[str, Any]]:
    """Rows of a run's ledger with the highest suspicion, highest first.

    Args:
        folder: the run folder.
        count: how many at most.
        which: of which pairs.

    Raises:
        UserError: the folder has no ledger, or another file under its name.
    """
    with _opened(folder) as file:
        worst: list[tuple[float, int, int]] = []  # suspicion, row group, row in it
        for group in range(file.num_row_groups):
            columns = file.read_row_group(group, columns=["suspicion", "learnt_at", "why"])
            suspicious = columns["suspicion"].to_numpy()
            meant = np.ones(len(suspicious), bool)
            if which is Which.never_learnt:
                meant = columns["learnt_at"].is_null().to_numpy()
            elif which is Which.suspicious:
                meant = pc.not_equal(columns["why"], "").fill_null(False).to_numpy()
            rows = ((float(suspicious[row]), -group, -int(row)) for row in np.flatnonzero(meant))
            worst = heapq.nlargest(count, [*worst, *rows])  # of equals the first in the file
        rows_of: dict[int, list[int]] = {}
        for _, group, row in worst:
            rows_of.setdefault(-group, []).append(-row)
        read = {group: iter(file.read_row_group(group).take(rows).to_pylist()) for group, rows in rows_of.items()}
        return [next(read[-group]) for _, group, _ in worst]


def _opened(folder: Path) -> pq.ParquetFile:
    path = folder / run_folder.LEDGER
    if path.is_file():
        try:
            file = pq.ParquetFile(path)
        except (OSError, ValueError, pa.ArrowException) as error:
            raise UserError(f"{path}: cannot be read: {first_line(error)}") from None
        found = {field.name: field.type for field in file.schema_arrow}
        if any(found.get(name) != SCHEMA.field(name).type for name in ("suspicion", *LISTED)):
            raise UserError(f"{path}: was written by another version: its columns differ")
        return file
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; give the run folder that scripts/train.py printed last")
    if not (folder / run_folder.CONFIG).is_file():
        raise UserError(f"{folder}: holds no run; give the run folder that scripts/train.py printed last")
    raise UserError(f"{path}: not there; it is written when a run ends, except with ledger=false")


def read_summary(folder: Path) -> dict[str, Any]:
    """The content of ledger_summary.json.

    Raises:
        UserError: it is not there, or is another file under its name.
    """
    path = folder / run_folder.LEDGER_SUMMARY
    try:
        summary = json.loads(path.read_text(encoding="utf-8"))
        if not all(type(summary[name]) is int for name in COUNTS):
            raise ValueError("its counts must be whole numbers")
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        raise UserError(f"{path}: not a valid summary: {first_line(error)}") from None
    return summary

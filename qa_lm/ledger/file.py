"""Write and read ledger.parquet and ledger_summary.json, the training dynamics of each trained pair."""

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
from qa_lm.data.quality.minority import MAX_PAIRS, minority_answers
from qa_lm.data.table import BATCH, PairTable
from qa_lm.errors import UserError, first_line, reading
from qa_lm.evaluation.before.known_before import KnownBefore
from qa_lm.ledger.training_dynamics import TrainingDynamics, is_high, label_error_score, training_dynamics
from qa_lm.run import run_folder
from qa_lm.run.atomic import replacing, write_json

WORST = 20
"""Number of pairs that the summary lists."""
MIN_PAIRS = 200
"""With fewer trained pairs only contradictions count. Measured on three files with 3% wrong answers: with 200 pairs or
more, half of the answers called unlike are wrong; with 20 to 100 pairs, a third in two of the files."""
MIN_MEDIAN_CONSISTENCY = 0.3
"""Median answer consistency from which similar questions have similar answers. Measured with 3% wrong answers: of the
answers called unlike, 46% to 100% are wrong if the median is at least 0.35, and 3% to 18%, hardly more than by chance,
if it is at most 0.1."""
UNLIKE = 0.1
"""An answer is unlike the answers to similar questions if its consistency is below this share of the median."""
MAX_NEVER_LEARNT = 0.05
"""Pairs that were never learnt are listed if they are at most this share of the trained pairs."""
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
BEFORE = pa.schema({"loss_before": pa.float32(), "exact_before": pa.bool_(), "known_before": pa.bool_()})
"""Columns of epoch 0, for a pretrained start: loss and exactness with the run's own prompt before training, and whether
the pair was known, see `qa_lm.evaluation.before`."""
LISTED = ("place", "question", "answer", "learnt_at", "forgotten", "last_loss", "why")
"""Columns of the summary's list."""

COUNTS = ("pairs", "learnt", "never_learnt", "forgotten", "epochs")
"""Keys of the summary whose values are integers."""


@dataclass(frozen=True)
class _Analysis:
    """The analysis of the trained pairs; arrays have one value per pair."""

    table: PairTable
    trained: np.ndarray
    losses: Sequence[np.ndarray]
    exact: Sequence[np.ndarray]
    dynamics: TrainingDynamics
    score: np.ndarray
    reasons: list[tuple[np.ndarray, str]]
    """Whether each reason applies to each pair, with its text."""
    details: list[tuple[np.ndarray, str]]
    """Like `reasons`, but a detail alone is not a reason: in every file some pairs are learnt last."""
    minority: dict[int, tuple[str, int]]
    note: str
    """What cannot be detected in these pairs; empty if everything can."""
    before: KnownBefore | None
    """What the model knew before training; None unless it started from a pretrained model."""

    def why(self, number: int) -> str:
        """Why a trained pair is suspicious; empty if it is not."""
        case = self.minority.get(int(self.trained[number]))
        reasons = [f"contradicts {case[0]} at {self.table.place(case[1])}"] if case else []
        reasons += [text for applies, text in self.reasons if applies[number]]
        return ", ".join([*reasons, *(text for applies, text in self.details if applies[number])]) if reasons else ""


def write_ledger(
    folder: Path,
    table: PairTable,
    trained: np.ndarray,
    losses: Sequence[np.ndarray],
    exact: Sequence[np.ndarray],
    before: KnownBefore | None = None,
) -> None:
    """Write both files atomically.

    Args:
        folder: the run folder.
        table: all pairs.
        trained: indices of the trained pairs, ascending.
        losses: for each epoch the loss of each trained pair, see `Ledger`.
        exact: for each epoch whether each trained pair was exact, see `Ledger`.
        before: what a pretrained model knew before training, which is epoch 0.
    """
    analysis = _analyse(table, trained, losses, exact, before)
    path = folder / run_folder.LEDGER
    bounds = np.searchsorted(trained, np.arange(0, len(table) + BATCH, BATCH)).tolist()
    with replacing(path) as temporary, pq.ParquetWriter(temporary, _schema(before)) as writer:
        for pairs, (start, end) in zip(table.batches(), pairwise(bounds), strict=True):
            if start < end:
                writer.write_batch(_record_batch(analysis, pairs, start, end))
    summary = {
        "pairs": len(trained),
        "learnt": int((analysis.dynamics.learnt_at > 0).sum()),
        "never_learnt": int((analysis.dynamics.learnt_at == 0).sum()),
        "forgotten": int((analysis.dynamics.forgotten > 0).sum()),
        "epochs": len(losses),
        "near_duplicates": "looked for" if len(trained) <= MAX_PAIRS else f"not looked for above {MAX_PAIRS:,} pairs",
        "note": analysis.note,
        "worst": [{name: row[name] for name in LISTED} for row in read_worst(folder, WORST)],
    }
    if before:
        known = np.array(before.of(trained))
        learnt = known & (analysis.dynamics.learnt_at > 0)
        summary |= {"known_before": int(known.sum()), "learnt_known_before": int(learnt.sum())}
    write_json(folder / run_folder.LEDGER_SUMMARY, summary)


def _schema(before: KnownBefore | None) -> pa.Schema:
    return pa.schema([*SCHEMA, *(BEFORE if before else ())])


def _analyse(
    table: PairTable,
    trained: np.ndarray,
    losses: Sequence[np.ndarray],
    exact: Sequence[np.ndarray],
    before: KnownBefore | None,
) -> _Analysis:
    from qa_lm.data.quality.similarity import answer_consistency  # scipy and datasketch take a second to import

    dynamics = training_dynamics(losses, exact, len(trained))
    minority = minority_answers(table, trained)
    consistency = answer_consistency(table, trained)
    score = label_error_score(dynamics.mean_loss, consistency, np.isin(trained, list(minority)))
    enough = len(trained) >= MIN_PAIRS
    median = float(np.median(consistency)) if enough else 0.0
    related = median >= MIN_MEDIAN_CONSISTENCY
    never = dynamics.learnt_at == 0
    unlike = is_high(-consistency) & (consistency < UNLIKE * median) & related
    reasons = [
        (never & (enough and float(never.mean()) <= MAX_NEVER_LEARNT), "never learnt"),
        (unlike, "unlike the answers to similar questions"),
    ]
    details = [
        (~never & is_high(np.where(never, len(losses) + 1, dynamics.learnt_at)), "learnt late"),
        (is_high(dynamics.mean_loss), "high loss"),
    ]
    note = _note(len(trained), related)
    return _Analysis(table, trained, losses, exact, dynamics, score, reasons, details, minority, note, before)


def _note(pairs: int, related: bool) -> str:
    """What cannot be detected, as a sentence; empty if everything can."""
    if pairs < MIN_PAIRS:
        return (
            f"Fewer than {MIN_PAIRS} pairs were trained, too few to distinguish wrong answers from hard ones: only "
            "contradictions are listed."
        )
    if not related:
        return (
            "In this file similar questions do not have similar answers, so an answer that belongs to another question "
            "cannot be detected: only contradictions and pairs that were never learnt are listed."
        )
    return ""


def _record_batch(analysis: _Analysis, batch: list[Pair], start: int, end: int) -> pa.RecordBatch:
    """The rows of the trained pairs from `start` to `end`, which all belong to one batch of the table."""
    table, indices = analysis.table, analysis.trained[start:end]
    sources, lines = table.numbers("source")[indices], table.numbers("line")[indices]
    pairs = [batch[index % BATCH] for index in indices]
    dynamics = TrainingDynamics(*(values[start:end] for values in analysis.dynamics))
    losses, exact = (
        np.stack([epoch[start:end] for epoch in epochs], 1) if epochs else np.zeros((end - start, 0))
        for epochs in (analysis.losses, analysis.exact)
    )
    not_trained = exact < 0
    columns = {
        "place": [f"{table.sources[source]}:{line}" for source, line in zip(sources, lines, strict=True)],
        "question": [pair.question for pair in pairs],
        "answer": [pair.answer for pair in pairs],
        "losses": _lists(losses.astype(np.float32), not_trained),
        "exact": _lists(exact > 0, not_trained),
        "learnt_at": pa.array(dynamics.learnt_at, mask=dynamics.learnt_at == 0),
        "first_exact": pa.array(dynamics.first_exact, mask=dynamics.first_exact == 0),
        "forgotten": dynamics.forgotten,
        "last_loss": pa.array(dynamics.last_loss, mask=not_trained.all(axis=1)),
        "mean_loss": pa.array(dynamics.mean_loss, mask=not_trained.all(axis=1)),
        "suspicion": analysis.score[start:end].astype(np.float32),
        "why": [analysis.why(number) for number in range(start, end)],
    }
    if before := analysis.before:
        rows = before.rows(indices)
        known = (before.losses[rows], before.own_prompt[rows], before.known[rows])
        columns |= dict(zip(BEFORE.names, known, strict=True))
    return pa.record_batch(columns, schema=_schema(before))


def _lists(values: np.ndarray, unknown: np.ndarray) -> pa.ListArray:
    """Convert (pairs, epochs) to one list per pair, with null for unknown values."""
    pairs, epochs = values.shape
    offsets = pa.array(np.arange(pairs + 1) * epochs, pa.int32())
    return pa.ListArray.from_arrays(offsets, pa.array(values.ravel(), mask=unknown.ravel()))


class LedgerFilter(StrEnum):
    """Selects pairs of a ledger."""

    suspicious = "suspicious"
    """Pairs with a value in `why`."""
    never_learnt = "never_learnt"
    every = "every"


def read_worst(folder: Path, count: int, pairs: LedgerFilter = LedgerFilter.suspicious) -> list[dict[str, Any]]:
    """Read the rows of a run's ledger with the highest suspicion, highest first.

    Args:
        folder: the run folder.
        count: maximum number of rows.
        pairs: the pairs to choose from.

    Raises:
        UserError: the folder has no ledger, or the file is not a valid ledger.
    """
    with _open_ledger(folder) as file:
        worst: list[tuple[float, int, int]] = []  # suspicion, row group, row in it
        for group in range(file.num_row_groups):
            columns = file.read_row_group(group, columns=["suspicion", "learnt_at", "why"])
            suspicious = columns["suspicion"].to_numpy()
            selected = np.ones(len(suspicious), bool)
            if pairs is LedgerFilter.never_learnt:
                selected = columns["learnt_at"].is_null().to_numpy()
            elif pairs is LedgerFilter.suspicious:
                selected = pc.not_equal(columns["why"], "").fill_null(False).to_numpy()
            rows = ((float(suspicious[row]), -group, -int(row)) for row in np.flatnonzero(selected))
            worst = heapq.nlargest(count, [*worst, *rows])  # ties: the first in the file wins
        rows_of: dict[int, list[int]] = {}
        for _, group, row in worst:
            rows_of.setdefault(-group, []).append(-row)
        read = {group: iter(file.read_row_group(group).take(rows).to_pylist()) for group, rows in rows_of.items()}
        return [next(read[-group]) for _, group, _ in worst]


def _open_ledger(folder: Path) -> pq.ParquetFile:
    path = folder / run_folder.LEDGER
    if path.is_file():
        try:
            file = pq.ParquetFile(path)
        except (OSError, ValueError, pa.ArrowException) as error:
            raise UserError(f"{path}: cannot be read: {first_line(error)}") from None
        types = {field.name: field.type for field in file.schema_arrow}
        if any(types.get(name) != SCHEMA.field(name).type for name in ("suspicion", *LISTED)):
            raise UserError(f"{path}: was written by another version: its columns differ")
        return file
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; give the run folder that train.py printed last")
    if not (folder / run_folder.CONFIG).is_file():
        raise UserError(f"{folder}: not a run folder; give the run folder that train.py printed last")
    raise UserError(f"{path}: does not exist; it is written when a run ends, unless ledger=false")


def read_summary(folder: Path) -> dict[str, Any]:
    """Read ledger_summary.json.

    Raises:
        UserError: the file does not exist, or is not a valid summary.
    """
    path = folder / run_folder.LEDGER_SUMMARY
    with reading(path, "not a valid summary"):
        summary: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if not all(type(summary[name]) is int for name in COUNTS):
            raise ValueError("the counts must be integers")
    return summary

"""The data report: contents of the files, problems, and the best possible scores.

It uses only the numbers about each pair, so it takes seconds for millions of pairs.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from qa_lm.data.batches.store import EncodedPairs
from qa_lm.data.keys import slices
from qa_lm.data.quality.missing import describe_missing
from qa_lm.data.quality.repeats import (
    describe_shared,
    find_repeats,
    report_contradictions,
    report_repeats,
    shared_answers,
)
from qa_lm.data.splits.draw import KINDS, Split, leaks
from qa_lm.data.storage.arrays import ascending, blocks, where
from qa_lm.data.table import PairTable

PERCENTILES = (0, 1, 5, 25, 50, 75, 95, 99, 100)


@dataclass
class DataReport:
    """The content of data_report.json."""

    sources: dict[str, str]
    """Every file or data set, with the columns read as question, answer and group, and unusual properties: its
    encoding, its separator, rows that were left out."""
    counts: dict[str, int]
    bad_lines: dict[str, Any]
    """Lines left out by `data.bad_lines=skip`, including empty questions and answers: count; kinds (count of each);
    listed (the first ones with their places)."""
    lengths: dict[str, dict[str, int]]
    """Percentiles, in characters and tokens, of questions, answers and whole examples (inputs of the model)."""
    shared_answers: dict[str, Any]
    """Statistics of pairs with the same answer, see `qa_lm.data.quality.repeats.shared_answers`."""
    unanswerable: int
    """Number of questions without an answer that were left out (`data.unanswerable=skip`)."""
    repeats: dict[str, Any]
    """Repeated pairs: count, without the first of each; listed."""
    contradictions: dict[str, Any]
    """Questions with different answers: questions; pairs; listed with their places; best possible scores."""
    repeated_questions: dict[str, int]
    """Held-out pairs per split whose question is also trained, ignoring case, spaces and final punctuation."""
    too_long: dict[str, Any]
    """Pairs longer than the limit in tokens: count; limit; effect; listed."""
    eos_trained: float
    """Share of the examples whose last target is EOS."""
    tokens: dict[str, float]
    """Mean tokens per example and per answer (EOS included), and total tokens per epoch."""
    held_out: dict[str, int] = field(default_factory=dict)
    """Number of validation pairs by the reason for being held out, if pairs have groups."""
    warnings: list[str] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """Convert the report to plain values for JSON."""
        return asdict(self)


def percentiles(counts: np.ndarray) -> dict[str, int]:
    """Percentiles by name: p0 is the minimum, p100 the maximum.

    Args:
        counts: number of occurrences of each integer from 0, as from `np.bincount`.
    """
    if not counts.any():
        return {}
    below = np.cumsum(counts)
    ranks = np.maximum(np.ceil(np.array(PERCENTILES) / 100 * below[-1]), 1)
    return {f"p{p}": int(value) for p, value in zip(PERCENTILES, np.searchsorted(below, ranks), strict=True)}


def _counted(numbers: Callable[[np.ndarray], np.ndarray], indices: np.ndarray | range) -> np.ndarray:
    """Number of occurrences of each value, computed block by block to save memory."""
    counts = np.zeros(0, np.int64)
    for block in blocks(len(indices)):
        more = np.bincount(numbers(np.asarray(indices[block])), minlength=len(counts))
        more[: len(counts)] += counts
        counts = more
    return counts


def describe(
    table: PairTable,
    split: Split,
    examples: EncodedPairs,
    eos_id: int,
    found: Mapping[str, Any],
    too_long: dict[str, Any],
) -> DataReport:
    """Compute the report of the pairs of a run.

    Args:
        table: all pairs.
        split: indices per split; dropped pairs are in none.
        examples: the encoded pairs.
        eos_id: id of EOS, which must end every example.
        found: findings of the reader, see `qa_lm.data.readers.reading.PairReader.found`.
        too_long: result of `within_limit`.
    """
    used = ascending(split[:3], len(table))
    everywhere = range(len(table))
    counts = {
        "question_characters": _counted(lambda block: table.numbers("question_characters")[block], everywhere),
        "answer_characters": _counted(lambda block: table.numbers("answer_characters")[block], everywhere),
        "prompt_tokens": _counted(examples.prompt_lengths, used),
        "answer_tokens": _counted(examples.answer_lengths, used),
        "example_tokens": _counted(examples.lengths, used),
    }
    answer_tokens, example_tokens = _total(counts["answer_tokens"]), _total(counts["example_tokens"])
    repeats = find_repeats(table, used)
    shared = shared_answers(table)
    report = DataReport(
        sources=found["columns"],
        counts={
            "pairs": len(table),
            "train": len(split.train),
            "validation": len(split.validation),
            "test": len(split.test),
            "questions": repeats.questions,
            "groups": _different(table.numbers("group_key")),
            "answers": shared["answers"],
        },
        shared_answers=shared,
        unanswerable=found["unanswerable"],
        bad_lines=found["bad_lines"],
        lengths={name: percentiles(found) for name, found in counts.items()},
        repeats=report_repeats(table, repeats),
        contradictions=report_contradictions(
            table, repeats, answer_tokens, example_tokens, _nats(_counted(examples.first_tokens, used))
        ),
        repeated_questions=leaks(split, table.numbers("normalised_key")),
        too_long=too_long,
        eos_trained=float(
            _counted(lambda block: examples.ends_with(eos_id, block).astype(int), used)[1:].sum() / len(used)
        ),
        tokens={
            "per_example": example_tokens / len(used),
            "per_answer": answer_tokens / len(used),
            "per_epoch": _total(_counted(examples.lengths, split.train)),
        },
        held_out={KINDS[kind]: int((split.held_out == kind).sum()) for kind in range(1, len(KINDS))}
        if split.held_out.any()
        else {},
    )
    report.warnings = [*found["warnings"], *describe_missing(table), *_warnings(report)]
    return report


def _total(counts: np.ndarray) -> int:
    return int(np.arange(len(counts)) @ counts)


def _nats(counts: np.ndarray) -> float:
    """Sum of -ln p over all counted items, where p is the share of the item's value."""
    positive = counts[counts > 0]
    return float(positive @ np.log(positive.sum() / positive))


def _different(keys: np.ndarray) -> int:
    """Number of different keys, without 0."""
    places = where(len(keys), lambda block: keys[block] != 0)
    return sum(len(np.unique(part)) for _, part in slices([keys], places))


def _warnings(report: DataReport) -> list[str]:
    warnings = []
    bad, repeats, contradictions, long = report.bad_lines, report.repeats, report.contradictions, report.too_long
    if bad["count"]:
        kinds = ", ".join(f"{kind} {number:,}" for kind, number in bad["kinds"].items())
        warnings.append(f"bad lines left out: {bad['count']:,} ({kinds}); the first: {bad['listed'][0]}")
    if repeats["count"]:
        warnings.append(f"repeats of an earlier pair: {repeats['count']:,}; the first: {repeats['listed'][0]}")
    if contradictions["questions"]:
        first = contradictions["listed"][0]
        best = contradictions["best_recall"]
        limit = f"no model can answer more than {best:.2%} of the pairs; " if best < 1 else ""
        warnings.append(
            f"questions with different answers: {contradictions['questions']:,}; {limit}the first: "
            f"{first['question'][:60]!r} at " + ", ".join(first["places"][:3])
        )
    for side, count in report.repeated_questions.items():
        if count:
            warnings.append(
                f"pairs of {side} with the question of a trained pair: {count:,}; "
                "their scores do not show generalisation"
            )
    if long["count"]:
        warnings.append(f"pairs longer than {long['limit']:,} tokens: {long['count']:,}; {long['effect']}")
    return warnings


def summary(report: DataReport) -> list[str]:
    """Summarise the report in a few lines."""
    tokens, longest = report.tokens, report.lengths["example_tokens"]["p100"]
    lengths = (
        f"tokens per pair: mean {tokens['per_example']:.1f} (answer and end token {tokens['per_answer']:.1f}), "
        f"maximum {longest:,}"
    )
    lines = [lengths, *describe_shared(report.shared_answers)]
    if report.unanswerable:
        lines.append(f"questions without an answer, left out: {report.unanswerable:,}")
    return [*lines, *(f"warning: {warning}" for warning in report.warnings)]

"""What a file of pairs holds, what is wrong with it, and what can be learnt from it at best.

Everything is found from the numbers about each pair, so it costs seconds at millions of pairs.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from qa_lm.data.batches.store import EncodedPairs
from qa_lm.data.quality.missing import missing_in_words
from qa_lm.data.quality.repeats import contradictions_in_words, find_repeats, repeats_in_words, slices
from qa_lm.data.quality.shared_answers import shared_answers, shared_in_words
from qa_lm.data.splits.draw import KINDS, Split, leaks
from qa_lm.data.table import PairTable

PERCENTILES = (0, 1, 5, 25, 50, 75, 95, 99, 100)
BLOCK = 1 << 18
"""Pairs looked at together."""


@dataclass
class DataReport:
    """The content of data_report.json."""

    sources: dict[str, str]
    """Every file or data set, with the columns that were read as question, answer and group, and how it was read
    where that is not plain: its encoding, its separator, rows that were left out."""
    counts: dict[str, int]
    bad_lines: dict[str, Any]
    """count; kinds: how many of each, empty questions and answers among them; listed: the first ones with their places.
    They were left out (`data.bad_lines=skip`)."""
    lengths: dict[str, dict[str, int]]
    """Percentiles, in characters and in tokens, of questions, answers and whole examples (inputs of the model)."""
    shared_answers: dict[str, Any]
    """Whether pairs have the same answer, see `qa_lm.data.quality.shared_answers`."""
    unanswerable: int
    """Questions without an answer that were left out (`data.unanswerable=skip`)."""
    repeats: dict[str, Any]
    """Pairs that stand in the files more than once: count of the surplus ones; listed."""
    contradictions: dict[str, Any]
    """Questions with different answers: questions; pairs; listed with their places; the best that can be learnt."""
    repeated_questions: dict[str, int]
    """Held-out pairs whose question is trained too, but for case, spaces and final punctuation."""
    too_long: dict[str, Any]
    """Pairs longer than the limit in tokens: count; limit; what happens to them; listed."""
    eos_trained: float
    """Share of the examples whose last target is the EOS."""
    tokens: dict[str, float]
    """Means: per example, per answer with its EOS, and per epoch in all."""
    held_out: dict[str, int] = field(default_factory=dict)
    """Validation pairs by why they are held out, where pairs have groups."""
    warnings: list[str] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)


def percentiles(counts: np.ndarray) -> dict[str, int]:
    """The values below which a share of all lie, by their names: p0 is the least, p100 the greatest.

    Args:
        counts: how often each whole number from 0 occurs, as `np.bincount` has it; that takes no sorting.
    """
    if not counts.any():
        return {}
    below = np.cumsum(counts)
    ranks = np.maximum(np.ceil(np.array(PERCENTILES) / 100 * below[-1]), 1)
    return {f"p{p}": int(value) for p, value in zip(PERCENTILES, np.searchsorted(below, ranks), strict=True)}


def _counted(numbers: Callable[[np.ndarray], np.ndarray], indices: np.ndarray) -> np.ndarray:
    """How often each value occurs, looked at a block of pairs at a time, so that memory does not hold all."""
    counts = np.zeros(0, np.int64)
    for begin in range(0, len(indices), BLOCK):
        more = np.bincount(numbers(indices[begin : begin + BLOCK]), minlength=len(counts))
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
    """The report of the pairs of a run.

    Args:
        table: all pairs.
        split: which are trained and which held out; pairs that were dropped are in none.
        examples: the pairs encoded.
        eos_id: the id that must end every example.
        found: what the reader found beside the pairs, see `qa_lm.data.readers.reading.PairReader.found`.
        too_long: what `length_limit` found.
    """
    used = np.sort(np.concatenate([split.train, split.validation, split.test]))
    everywhere = np.arange(len(table), dtype=np.int32)
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
        repeats=repeats_in_words(table, repeats),
        contradictions=contradictions_in_words(
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
    report.warnings = [*found["warnings"], *missing_in_words(table), *_warnings(report)]
    return report


def _total(counts: np.ndarray) -> int:
    return int(np.arange(len(counts)) @ counts)


def _nats(counts: np.ndarray) -> float:
    """Sum over what was counted of -ln p, p being the share of its value."""
    found = counts[counts > 0]
    return float(found @ np.log(found.sum() / found))


def _different(keys: np.ndarray) -> int:
    """How many different keys there are, 0 not counted."""
    return sum(len(np.unique(keys[part][keys[part] != 0])) for part in slices(keys)) if keys.any() else 0


def _warnings(report: DataReport) -> list[str]:
    found = []
    bad, repeats, contradictions, long = report.bad_lines, report.repeats, report.contradictions, report.too_long
    if bad["count"]:
        kinds = ", ".join(f"{kind} {number:,}" for kind, number in bad["kinds"].items())
        found.append(f"bad lines left out: {bad['count']:,} ({kinds}); the first: {bad['listed'][0]}")
    if repeats["count"]:
        found.append(f"repeats of an earlier pair: {repeats['count']:,}; the first: {repeats['listed'][0]}")
    if contradictions["questions"]:
        first = contradictions["listed"][0]
        best = contradictions["best_recall"]
        limit = f"no model can answer more than {best:.2%} of the pairs; " if best < 1 else ""
        found.append(
            f"questions with different answers: {contradictions['questions']:,}; {limit}the first: "
            f"{first['question'][:60]!r} at " + ", ".join(first["places"][:3])
        )
    for side, count in report.repeated_questions.items():
        if count:
            found.append(f"pairs of {side} that ask what a trained pair asks: {count:,}; what they score is no proof")
    if long["count"]:
        found.append(f"pairs longer than {long['limit']:,} tokens: {long['count']:,}; {long['effect']}")
    return found


def summary(report: DataReport) -> list[str]:
    """The report in a few lines."""
    tokens, longest = report.tokens, report.lengths["example_tokens"]["p100"]
    counted = (
        f"tokens: {tokens['per_example']:.1f} per pair, {tokens['per_answer']:.1f} of them its answer with EOS; "
        f"longest pair {longest:,}"
    )
    lines = [counted, *shared_in_words(report.shared_answers)]
    if report.unanswerable:
        lines.append(f"questions without an answer, left out: {report.unanswerable:,}")
    return [*lines, *(f"warning: {warning}" for warning in report.warnings)]

"""Pairs and questions that stand in the files more than once, by keys of 64 bits.

Keys are looked at a slice of their range at a time, so that memory holds one slice and not the file.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from qa_lm.data.pairs import Pair
from qa_lm.data.table import PairTable

LISTED = 20
"""Cases that are listed with their places."""
SLICE = 500_000
"""Pairs looked at together, about."""


@dataclass
class Repeats:
    """What repeats, over all pairs that were looked at."""

    pairs: int = 0
    questions: int = 0
    """Different ones."""
    surplus: int = 0
    """Pairs with the question and answer of an earlier one."""
    contradicted: int = 0
    """Questions with more than one answer."""
    contradicted_pairs: int = 0
    answered_best: int = 0
    """Pairs that are answered if every question gets the answer that most of its pairs accept."""
    answer_nats: float = 0.0
    """Sum over pairs of -ln p(answer | question), p being the share in the file."""
    pair_nats: float = 0.0
    """Sum over pairs of -ln p(question and answer)."""
    first_surplus: list[tuple[int, int]] = field(default_factory=list)
    """(pair, the earlier one it repeats)."""
    first_contradictions: list[list[int]] = field(default_factory=list)
    """The pairs of one question."""


def slices(keys: np.ndarray, indices: np.ndarray | None = None) -> Iterator[np.ndarray]:
    """Places of the pairs whose keys fall into one slice of the range, slice after slice; equal keys stay together."""
    count = len(keys) if indices is None else len(indices)
    shift = np.uint64(64 - max(0, count // SLICE).bit_length())
    whole = np.arange(len(keys)) if indices is None else indices
    if shift == 64:
        yield whole
        return
    slice_of = (keys if indices is None else keys[indices]) >> shift
    slice_of = slice_of.astype(np.uint16)
    for number in range(1 << (64 - int(shift))):
        yield whole[slice_of == number]


def find_repeats(table: PairTable, indices: np.ndarray) -> Repeats:
    """Look at these pairs of the table."""
    found = Repeats(pairs=len(indices))
    questions, answers = table.numbers("question_key"), table.numbers("answer_key")
    for part in slices(questions, indices):
        if len(part):
            _add(found, table, part, questions[part], answers[part])
    found.first_surplus = sorted(found.first_surplus)[:LISTED]
    found.first_contradictions = sorted(found.first_contradictions)[:LISTED]
    return found


def _add(found: Repeats, table: PairTable, part: np.ndarray, questions: np.ndarray, answers: np.ndarray) -> None:
    order = np.lexsort((part, answers, questions))
    part, questions, answers = part[order], questions[order], answers[order]
    begins_question = np.diff(questions, prepend=questions[:1] ^ np.uint64(1)) != 0
    begins_answer = begins_question | (np.diff(answers, prepend=answers[:1]) != 0)
    question_of_answer = (np.cumsum(begins_question) - 1)[begins_answer]
    of_answer = np.diff(np.append(np.flatnonzero(begins_answer), len(part)))  # pairs of each question and answer
    question_begins = np.flatnonzero(begins_question)
    of_question = np.diff(np.append(question_begins, len(part)))
    most = np.zeros(len(of_question), np.int64)
    np.maximum.at(most, question_of_answer, of_answer)
    several = np.flatnonzero(np.bincount(question_of_answer) > 1)

    found.questions += len(of_question)
    found.surplus += int((~begins_answer).sum())
    found.contradicted += len(several)
    found.contradicted_pairs += int(of_question[several].sum())
    found.answered_best += int(most.sum())
    found.answer_nats += float((of_answer * np.log(of_question[question_of_answer] / of_answer)).sum())
    found.pair_nats += float((of_answer * np.log(found.pairs / of_answer)).sum())

    has_others = table.numbers("other_answers")[part] > 0
    for number in several[np.logical_or.reduceat(has_others, question_begins)[several]] if len(part) else ():
        begin = question_begins[number]
        of_one = table.pairs(part[begin : begin + of_question[number]])
        found.answered_best += _most_accepted(of_one) - int(most[number])

    again = np.flatnonzero(~begins_answer)
    again = again[np.argsort(part[again])][:LISTED]
    found.first_surplus += zip(part[again].tolist(), part[again - 1].tolist(), strict=True)
    if len(several):
        firsts = np.minimum.reduceat(part, question_begins)[several]
        for number in several[np.argsort(firsts)][:LISTED]:
            begin = question_begins[number]
            found.first_contradictions.append(sorted(part[begin : begin + of_question[number]].tolist())[:LISTED])


def answerable(table: PairTable, trained: np.ndarray, sample: np.ndarray) -> float:
    """Share of a sample of the trained pairs that a model is expected to answer which gives each question one answer.

    Where the pairs of one question disagree, that is the answer that most of the trained ones have; of several it may
    be any, each as likely.

    Args:
        table: all pairs.
        trained: places of the trained pairs.
        sample: places of those that are asked.
    """
    questions, answers = table.numbers("question_key"), table.numbers("answer_key")
    asked = np.unique(questions[sample])
    same = trained[np.isin(questions[trained], asked)]
    counts = Counter(zip(questions[same].tolist(), answers[same].tolist(), strict=True))
    most: dict[int, int] = {}
    for (question, _), count in counts.items():
        most[question] = max(most.get(question, 0), count)
    leading = Counter(question for (question, _), count in counts.items() if count == most[question])
    in_sample = zip(questions[sample].tolist(), answers[sample].tolist(), strict=True)
    expected = sum(1 / leading[each[0]] for each in in_sample if counts[each] == most[each[0]])
    return expected / max(1, len(sample))


def _most_accepted(pairs: list[Pair]) -> int:
    """How many of these pairs of one question the best single answer satisfies."""
    return max(Counter(answer for pair in pairs for answer in {pair.answer, *pair.other_answers}).values())


def repeats_in_words(table: PairTable, found: Repeats) -> dict[str, Any]:
    """Surplus pairs for the report: their count, and the first ones with their places."""
    listed = [f"{table.place(index)} repeats {table.place(earlier)}" for index, earlier in found.first_surplus]
    return {"count": found.surplus, "listed": listed}


def contradictions_in_words(
    table: PairTable, found: Repeats, answer_tokens: int, example_tokens: int, first_token_nats: float
) -> dict[str, Any]:
    """Contradictions for the report, with the best that a model can do with them.

    A model gives one answer to one question, so the best recall takes the most accepted answer of each. The best mean
    token loss, in nats, is what a model has that knows the file by heart: on the answers the entropy of the answers
    given the question, on whole examples the entropy of the pairs given their first token, which is no target.

    Args:
        table: all pairs.
        found: what repeats among those that were looked at.
        answer_tokens: tokens of their answers, EOS included.
        example_tokens: targets of their examples.
        first_token_nats: sum over pairs of -ln p(first token), p being the share in the file.
    """
    return {
        "questions": found.contradicted,
        "pairs": found.contradicted_pairs,
        "best_recall": found.answered_best / max(found.pairs, 1),
        "best_answer_loss": found.answer_nats / max(answer_tokens, 1),
        "best_loss": (found.pair_nats - first_token_nats) / max(example_tokens, 1),
        "listed": [
            {"question": table.pairs(group[:1])[0].question, "places": [table.place(index) for index in group]}
            for group in found.first_contradictions
        ],
    }

"""Find repeated pairs and questions by their 64-bit keys.

Keys are processed in slices of their range, so that only one slice is in memory.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from qa_lm.data.pairs import Pair
from qa_lm.data.table import PairTable

LISTED = 20
"""Maximum number of cases listed with their places."""
SLICE = 500_000
"""Approximate number of pairs processed at once."""


@dataclass
class Repeats:
    """Statistics of repeated questions and pairs."""

    pairs: int = 0
    """Number of pairs examined."""
    questions: int = 0
    """Number of different questions."""
    surplus: int = 0
    """Number of pairs with the question and answer of an earlier pair."""
    contradicted: int = 0
    """Number of questions with more than one answer."""
    contradicted_pairs: int = 0
    """Number of pairs with such a question."""
    answered_best: int = 0
    """Number of right pairs if every question gets the answer that most of its pairs accept."""
    answer_nats: float = 0.0
    """Sum over pairs of -ln p(answer | question), where p is the share in the file."""
    pair_nats: float = 0.0
    """Sum over pairs of -ln p(question and answer)."""
    first_surplus: list[tuple[int, int]] = field(default_factory=list)
    """The first repeated pairs: (pair, the earlier pair)."""
    first_contradictions: list[list[int]] = field(default_factory=list)
    """The pairs of each of the first questions with more than one answer."""


def slices(keys: np.ndarray, indices: np.ndarray | None = None) -> Iterator[np.ndarray]:
    """Iterate over indices of pairs, grouped by slices of the key range; equal keys are in the same slice."""
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
    """Find repeats among these pairs of the table."""
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
    of_answer = np.diff(np.append(np.flatnonzero(begins_answer), len(part)))  # number of pairs per question and answer
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
    """Expected share of right answers on a sample of the trained pairs, if each question gets its majority answer.

    If several answers of a question are equally common, each is equally likely.

    Args:
        table: all pairs.
        trained: indices of the trained pairs.
        sample: indices of the sample.
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
    """Number of these pairs, all with one question, that accept the best single answer."""
    return max(Counter(answer for pair in pairs for answer in {pair.answer, *pair.other_answers}).values())


def report_repeats(table: PairTable, found: Repeats) -> dict[str, Any]:
    """The report on repeated pairs: their count, and the first ones with their places."""
    listed = [f"{table.place(index)} repeats {table.place(earlier)}" for index, earlier in found.first_surplus]
    return {"count": found.surplus, "listed": listed}


def report_contradictions(
    table: PairTable, found: Repeats, answer_tokens: int, example_tokens: int, first_token_nats: float
) -> dict[str, Any]:
    """The report on contradictions, with the best possible recall and losses.

    A model gives one answer per question, so the best recall uses the most accepted answer of each. The best mean token
    loss, in nats, is that of a model that has memorised the file: on answers, the entropy of the answers given the
    question; on whole examples, the entropy of the pairs given their first token, which is not a target.

    Args:
        table: all pairs.
        found: statistics from `find_repeats`.
        answer_tokens: number of tokens of the answers, EOS included.
        example_tokens: number of targets of the examples.
        first_token_nats: sum over pairs of -ln p(first token), where p is the share in the file.
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

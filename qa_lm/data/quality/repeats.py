"""Find repeated pairs, questions and answers by their 64-bit keys."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from qa_lm.data.keys import slices, sort_by
from qa_lm.data.pairs import Pair
from qa_lm.data.storage.arrays import blocks, counted
from qa_lm.data.table import PairTable

LISTED = 20
"""Maximum number of cases listed with their places."""
MIN_ANSWERS = 6
"""Minimum number of different answers; fewer are rather classes, such as yes and no."""
MAX_QUESTIONS = 30
"""Maximum number of questions of the median answer; more indicate classes too."""
MIN_CHARACTERS = 8
"""Minimum characters of the median answer; shorter ones are numbers and names, which unrelated questions share."""


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


def find_repeats(table: PairTable, indices: np.ndarray) -> Repeats:
    """Find repeats among these pairs of the table; the indices must be ascending."""
    found = Repeats(pairs=len(indices))
    columns = [table.numbers(name) for name in ("question_key", "answer_key", "other_answers")]
    for part, questions, answers, others in slices(columns, indices):
        if len(part):
            _add(found, table, part, questions, answers, others > 0)
    found.first_surplus = sorted(found.first_surplus)[:LISTED]
    found.first_contradictions = sorted(found.first_contradictions)[:LISTED]
    return found


def _add(
    found: Repeats,
    table: PairTable,
    part: np.ndarray,
    question_keys: np.ndarray,
    answer_keys: np.ndarray,
    others: np.ndarray,
) -> None:
    order, begins_question, begins_answer = sort_by(question_keys, answer_keys)
    part = part[order]
    questions, answers = np.flatnonzero(begins_question), np.flatnonzero(begins_answer)  # first pair of each
    of_question = np.diff(np.append(questions, len(part)))  # number of pairs
    of_answer = np.diff(np.append(answers, len(part)))
    question_of_answer = (np.cumsum(begins_question) - 1)[answers]
    first_answers = np.searchsorted(answers, questions)
    most = np.maximum.reduceat(of_answer, first_answers)
    several = np.flatnonzero(np.bincount(question_of_answer) > 1)

    found.questions += len(questions)
    found.surplus += len(part) - len(answers)
    found.contradicted += len(several)
    found.contradicted_pairs += int(of_question[several].sum())
    found.answered_best += int(most.sum())
    found.answer_nats += float((of_answer * np.log(of_question[question_of_answer] / of_answer)).sum())
    found.pair_nats += float((of_answer * np.log(found.pairs / of_answer)).sum())

    def pairs_of(question: int) -> np.ndarray:
        return part[questions[question] : questions[question] + of_question[question]]

    has_others = np.logical_or.reduceat(others[order], questions)
    for question in several[has_others[several]]:
        found.answered_best += _most_accepted(table.pairs(pairs_of(question))) - int(most[question])
    again = np.flatnonzero(~begins_answer)
    again = again[np.argsort(part[again])][:LISTED]
    found.first_surplus += zip(part[again].tolist(), part[again - 1].tolist(), strict=True)
    firsts = np.minimum.reduceat(part, questions)[several]
    for question in several[np.argsort(firsts)][:LISTED]:
        found.first_contradictions.append(sorted(pairs_of(question).tolist())[:LISTED])


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


def shared_answers(table: PairTable) -> dict[str, Any]:
    """Statistics of the number of different questions per answer.

    Returns:
        answers: number of different answers; median and most: median and maximum number of questions per answer;
        shared: share of the pairs whose answer has other questions too; faq: whether the file looks like a FAQ without
        groups, whose paraphrases a split with `data.group=answer` can hold out.
    """
    by_questions: Counter[int] = Counter()  # number of answers by their number of questions
    shared_pairs = 0
    for _, answers, questions in slices([table.numbers("answer_key"), table.numbers("normalised_key")]):
        of_answer, pairs_of = _questions_of(answers, questions)
        shared_pairs += int(pairs_of[of_answer > 1].sum())
        values, counts = np.unique(of_answer, return_counts=True)
        by_questions.update(dict(zip(values.tolist(), counts.tolist(), strict=True)))
    shared = shared_pairs / max(1, len(table))
    median = _median(by_questions)
    faq = (
        shared >= 0.5
        and by_questions.total() >= MIN_ANSWERS
        and median <= MAX_QUESTIONS
        and _median(Counter(dict(enumerate(counted(table.numbers("answer_characters")).tolist())))) >= MIN_CHARACTERS
        and not has_groups(table)
    )
    most = max(by_questions, default=0)
    return {"answers": by_questions.total(), "median": median, "most": most, "shared": shared, "faq": faq}


def has_groups(table: PairTable) -> bool:
    """Whether any pair has a group."""
    groups = table.numbers("group_key")
    return any(groups[block].any() for block in blocks(len(groups)))


def _median(counts: Counter[int]) -> float:
    """The median of counted numbers; 0 if there are none."""
    values = sorted(counts)
    ends = np.cumsum([counts[value] for value in values])
    middle = [values[np.searchsorted(ends, place, side="right")] for place in _middle(counts.total())]
    return sum(middle) / len(middle) if middle else 0.0


def _middle(count: int) -> list[int]:
    """The one or two places in the middle."""
    return sorted({(count - 1) // 2, count // 2}) if count else []


def describe_shared(found: Mapping[str, Any]) -> Iterator[str]:
    """Describe the statistics; nothing if no answer is shared."""
    if not found["shared"]:
        return
    yield (
        f"answers: {found['answers']:,} different ones; an answer has {found['median']:g} "
        f"question{'s' if found['median'] != 1 else ''} (median; at most {found['most']:,})"
    )
    if found["faq"]:
        yield (
            "if questions with the same answer are paraphrases: data.group=answer data.split=phrasing holds out "
            "paraphrases of trained facts"
        )


def _questions_of(answers: np.ndarray, questions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Number of different questions of each answer, and number of its pairs."""
    _, begins_answer, begins_question = sort_by(answers, questions)
    answer = np.cumsum(begins_answer) - 1
    return np.bincount(answer[begins_question]), np.bincount(answer)

"""Pairs with the same answer: a FAQ in which several wordings of a question have one answer?

There, questions with one answer state one fact, and `data.group=answer` lets a split hold out wordings of it.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from qa_lm.data.quality.repeats import slices
from qa_lm.data.table import PairTable

FEWEST_ANSWERS = 6
"""With fewer answers the questions are rather sorted into classes, such as yes and no."""
MOST_QUESTIONS = 30
"""Of the median answer; with more of them the same holds."""
SHORTEST = 8
"""Characters of the median answer; shorter ones are numbers and names, which questions of all kinds have."""


def shared_answers(table: PairTable) -> dict[str, Any]:
    """How many different questions the answers have.

    Returns:
        answers: how many there are; median and most: different questions of an answer; shared: the share of the pairs
        whose answer other questions have too; faq: whether the file looks like a FAQ, in which none has a group.
    """
    answers, questions = table.numbers("answer_key"), table.numbers("normalised_key")
    counts = [_questions_of(answers[part], questions[part]) for part in slices(answers)]
    of_answer, pairs_of = (np.concatenate(each) for each in zip(*counts, strict=True))
    shared = float(pairs_of[of_answer > 1].sum() / max(1, pairs_of.sum()))
    median = float(np.median(of_answer)) if len(of_answer) else 0.0
    faq = (
        shared >= 0.5
        and len(of_answer) >= FEWEST_ANSWERS
        and median <= MOST_QUESTIONS
        and float(np.median(table.numbers("answer_characters"))) >= SHORTEST
        and not table.numbers("group_key").any()
    )
    most = int(of_answer.max(initial=0))
    return {"answers": len(of_answer), "median": median, "most": most, "shared": shared, "faq": faq}


def shared_in_words(found: Mapping[str, Any]) -> Iterator[str]:
    """The same for a person, where answers are shared at all."""
    if not found["shared"]:
        return
    yield (
        f"answers: {found['answers']:,} different ones; an answer has {found['median']:g} "
        f"question{'s' if found['median'] != 1 else ''} (median; at most {found['most']:,})"
    )
    if found["faq"]:
        yield (
            "if questions with the same answer are wordings of one question: data.group=answer data.split=phrasing "
            "holds out wordings of trained answers"
        )


def _questions_of(answers: np.ndarray, questions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Different questions of each answer, and its pairs."""
    order = np.lexsort((questions, answers))
    answers, questions = answers[order], questions[order]
    begins_answer = np.diff(answers, prepend=answers[:1] ^ np.uint64(1)) != 0
    begins_question = begins_answer | (np.diff(questions, prepend=questions[:1]) != 0)
    answer = np.cumsum(begins_answer) - 1
    return np.bincount(answer[begins_question]), np.bincount(answer)

"""Pairs with the same answer, which may be paraphrases, as in a FAQ.

If questions with the same answer state the same fact, `data.group=answer` lets a split hold out paraphrases.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from qa_lm.data.keys import slices, sort_by
from qa_lm.data.table import PairTable

MIN_ANSWERS = 6
"""Minimum number of different answers; fewer are rather classes, such as yes and no."""
MAX_QUESTIONS = 30
"""Maximum number of questions of the median answer; more indicate classes too."""
MIN_CHARACTERS = 8
"""Minimum characters of the median answer; shorter ones are numbers and names, which unrelated questions share."""


def shared_answers(table: PairTable) -> dict[str, Any]:
    """Statistics of the number of different questions per answer.

    Returns:
        answers: number of different answers; median and most: median and maximum number of questions per answer;
        shared: share of the pairs whose answer has other questions too; faq: whether the file looks like a FAQ without
        groups.
    """
    answers, questions = table.numbers("answer_key"), table.numbers("normalised_key")
    counts = [_questions_of(answers[part], questions[part]) for part in slices(answers)]
    of_answer, pairs_of = (np.concatenate(each) for each in zip(*counts, strict=True))
    shared = float(pairs_of[of_answer > 1].sum() / max(1, pairs_of.sum()))
    median = float(np.median(of_answer)) if len(of_answer) else 0.0
    faq = (
        shared >= 0.5
        and len(of_answer) >= MIN_ANSWERS
        and median <= MAX_QUESTIONS
        and float(np.median(table.numbers("answer_characters"))) >= MIN_CHARACTERS
        and not table.numbers("group_key").any()
    )
    most = int(of_answer.max(initial=0))
    return {"answers": len(of_answer), "median": median, "most": most, "shared": shared, "faq": faq}


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

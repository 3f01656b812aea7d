"""Minority answers: answers that occur once among pairs that ask the same, while the majority agrees on another one.

Pairs ask the same if they have the same normalised question, the same group, or near-duplicate questions. An answer
that occurs twice or more may be right, such as yes and no to questions made from one template, so only an answer that
occurs once is a minority answer.
"""

import numpy as np

from qa_lm.data.keys import sort_by
from qa_lm.data.pairs import normalise_question, text_key
from qa_lm.data.table import PairTable

SAME_QUESTION, SAME_FACT, NEAR_DUPLICATE = "the same question", "the same fact", "a near-duplicate"
MAX_PAIRS = 200_000
"""Maximum number of pairs among which near-duplicates are searched; this takes 16 seconds."""


def minority_answers(table: PairTable, indices: np.ndarray) -> dict[int, tuple[str, int]]:
    """Pairs with a minority answer, each with the kind of its group and the first pair with the majority answer.

    Args:
        table: all pairs.
        indices: indices of the pairs, ascending.
    """
    answers = np.fromiter((text_key(normalise_question(pair.answer)) for pair in table.texts(indices)), np.uint64)
    own_group = np.arange(1, len(indices) + 1, dtype=np.uint64)
    facts = table.numbers("group_key")[indices]
    minority: dict[int, tuple[str, int]] = {}
    for kind, groups in (
        (SAME_QUESTION, table.numbers("normalised_key")[indices]),
        (SAME_FACT, np.where(facts == 0, own_group, facts)),
        (NEAR_DUPLICATE, _near(table, indices)),
    ):
        for pair, other in zip(*_minority_and_majority(groups, answers), strict=True):
            minority.setdefault(int(indices[pair]), (kind, int(indices[other])))
    return {pair: case for pair, case in minority.items() if not _accepts(table, pair, case[1])}


def _near(table: PairTable, indices: np.ndarray) -> np.ndarray:
    """Groups of near-duplicate questions; with more than `MAX_PAIRS` pairs, each pair is its own group."""
    if len(indices) > MAX_PAIRS:
        return np.arange(len(indices))
    from qa_lm.data.quality.near import near_groups  # scipy and datasketch take a second to import

    questions = (pair.question for pair in table.texts(indices))
    return near_groups(questions, table.numbers("normalised_key")[indices])


def _minority_and_majority(groups: np.ndarray, answers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pairs with an answer that is unique in a group with a majority answer; and the first pair with the latter."""
    order, group_starts, answer_starts = sort_by(groups, answers)
    starts = np.flatnonzero(answer_starts)
    votes = np.diff(np.append(starts, len(order)))  # per answer of each group
    group = np.cumsum(group_starts)[starts] - 1
    is_majority = 2 * votes > np.bincount(group, votes)[group] if len(group) else np.zeros(0, bool)
    majority = np.full(int(group_starts.sum()), -1)
    majority[group[is_majority]] = order[starts[is_majority]]
    is_minority = (votes == 1) & ~is_majority & (majority[group] >= 0)
    return order[starts[is_minority]], majority[group[is_minority]]


def _accepts(table: PairTable, pair: int, other: int) -> bool:
    """Whether one of two pairs lists the other's answer among its accepted answers."""
    if not table.numbers("other_answers")[[pair, other]].any():
        return False
    one, two = table.pairs([pair, other])
    return two.answer in one.other_answers or one.answer in two.other_answers

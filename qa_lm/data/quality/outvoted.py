"""Pairs whose answer stands alone among pairs that ask the same, where most of them agree on another one.

Three kinds of pairs ask the same: those of one normalised question, those of one group, and those of near-duplicate
questions. Where two answers are given twice or more, both may be right, as with yes and no to questions made from one
template: only an answer that is given once is outvoted.
"""

import numpy as np

from qa_lm.data.pairs import normalise_question, text_key
from qa_lm.data.table import PairTable

SAME_QUESTION, SAME_FACT, NEAR_DUPLICATE = "the same question", "the same fact", "a near-duplicate"
MOST_PAIRS = 200_000
"""Near-duplicates are looked for among so many pairs at most: that many took 16 seconds."""


def outvoted(table: PairTable, indices: np.ndarray) -> dict[int, tuple[str, int]]:
    """The outvoted ones of these pairs, each with what asks the same and the first pair that says otherwise.

    Args:
        table: all pairs.
        indices: places of the pairs that are looked at, ascending.
    """
    answers = np.fromiter((text_key(normalise_question(answer)) for _, answer in table.texts(indices)), np.uint64)
    alone = np.arange(1, len(indices) + 1, dtype=np.uint64)
    facts = table.numbers("group_key")[indices]
    found: dict[int, tuple[str, int]] = {}
    for what, groups in (
        (SAME_QUESTION, table.numbers("normalised_key")[indices]),
        (SAME_FACT, np.where(facts == 0, alone, facts)),
        (NEAR_DUPLICATE, _near(table, indices)),
    ):
        for pair, other in zip(*_alone_against_most(groups, answers), strict=True):
            found.setdefault(int(indices[pair]), (what, int(indices[other])))
    return {pair: case for pair, case in found.items() if not _accepts(table, pair, case[1])}


def _near(table: PairTable, indices: np.ndarray) -> np.ndarray:
    """Groups of near-duplicate questions; every pair its own where there are too many."""
    if len(indices) > MOST_PAIRS:
        return np.arange(len(indices))
    from qa_lm.data.quality.near import near_groups  # scipy and datasketch take a second

    questions = (question for question, _ in table.texts(indices))
    return near_groups(questions, table.numbers("normalised_key")[indices])


def _alone_against_most(groups: np.ndarray, answers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pairs whose answer nobody else in their group gives, more than half of it giving another; and the first that
    gives that one."""
    order = np.lexsort((answers, groups))  # stable: equal ones stay in order
    group_begins = np.diff(groups[order], prepend=groups[order[:1]] + 1) != 0
    begins = np.flatnonzero(group_begins | (np.diff(answers[order], prepend=answers[order[:1]]) != 0))
    votes = np.diff(np.append(begins, len(order)))  # for each group's answer
    group = np.cumsum(group_begins)[begins] - 1
    wins = 2 * votes > np.bincount(group, votes)[group] if len(group) else np.zeros(0, bool)
    winner = np.full(int(group_begins.sum()), -1)
    winner[group[wins]] = order[begins[wins]]
    loses = (votes == 1) & ~wins & (winner[group] >= 0)
    return order[begins[loses]], winner[group[loses]]


def _accepts(table: PairTable, pair: int, other: int) -> bool:
    """Whether one of two pairs lists the other's answer among its further ones."""
    if not table.numbers("other_answers")[[pair, other]].any():
        return False
    one, two = table.pairs([pair, other])
    return two.answer in one.other_answers or one.answer in two.other_answers

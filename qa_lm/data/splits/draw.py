"""Which pairs are trained and which are held out.

Except for the tutorial's shuffle, a split depends only on the seed and on the texts of the pairs: the order of the
file, its format and its repeats change nothing. Pairs are gathered into units that stay together, each unit gets a
number from the seed and its content, and the units with the smallest numbers are trained, up to the wanted share of
the pairs.

| kind             | unit                                                                              |
|------------------|-----------------------------------------------------------------------------------|
| shuffle          | a pair, in the order of `random.Random(seed).shuffle` (the tutorial's)             |
| question         | pairs of one normalised question; all pairs of a dialogue                          |
| near             | pairs of near-duplicate questions; all pairs of a dialogue                         |
| fact             | pairs of one group: whole facts are held out                                       |
| phrasing         | pairs of one group; of each, some questions are held out and the rest is trained   |
| phrasing_and_fact| both: some facts are held out whole, and of the trained ones some phrasings        |
"""

import random
from typing import NamedTuple

import numpy as np

from qa_lm import names
from qa_lm.data.keys import slices, smallest_of_group, sort_by
from qa_lm.data.storage.arrays import Gathered, blocks, each_block, joined, numbered, where, zeros
from qa_lm.errors import UserError

SEEN, UNSEEN_PHRASING, UNSEEN_FACT = 0, 1, 2
KINDS = ("", names.UNSEEN_PHRASING, names.UNSEEN_FACT)


class Split(NamedTuple):
    """Indices of the pairs of each side in the table, int32; each side has its own random order."""

    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray
    held_out: np.ndarray
    """The reason why each validation pair is held out, as an index of `KINDS`, int8."""


def shuffled_split(count: int, train_fraction: float, seed: int) -> Split:
    """Shuffle as `random.seed(seed); random.shuffle(pairs)` does, then cut: the first share is trained.

    Each side has at least one pair, unless all are trained (`train_fraction` 1).
    """
    order = numbered(count)
    random.Random(seed).shuffle(memoryview(order))  # type: ignore[arg-type]  # whose elements are Python's integers
    cut = count if train_fraction == 1 else min(max(int(train_fraction * count), 1), count - 1)
    return two_sides(order[:cut], order[cut:])


def unit_split(units: np.ndarray, tiebreak: np.ndarray, train_fraction: float, seed: int, what: str) -> Split:
    """Assign whole units to training or validation.

    Args:
        units: a key of the unit that each pair belongs to, (pairs,) uint64.
        tiebreak: a key of the pair itself, which orders the pairs of a unit, (pairs,) uint64.
        train_fraction: share of the pairs that is trained, approximated with whole units; 1 trains all.
        seed: random seed of the split.
        what: name of a unit, for errors.

    Raises:
        UserError: all pairs are one unit.
    """
    order, borders = random_order(units, tiebreak, seed)
    if train_fraction == 1:
        return two_sides(order, order[:0])
    if not len(borders):
        raise UserError(f"the pairs cannot be split: all have one {what}; choose another data.split", "data.split")
    wanted = train_fraction * len(units)
    after = int(np.searchsorted(borders, wanted))
    nearest = borders[max(after - 1, 0) : after + 1]
    cut = int(nearest[np.argmin(np.abs(nearest - wanted))])
    return two_sides(order[:cut], order[cut:])


def joined_units(units: np.ndarray, source: np.ndarray, line: np.ndarray) -> np.ndarray:
    """Merge units that share a dialogue; all pairs of a dialogue come from one line.

    Args:
        units: a key of the unit that each pair belongs to, (pairs,) uint64.
        source: the file of each pair; the pairs of a dialogue are consecutive.
        line: the line of each pair.
    """
    begins = (np.diff(source, prepend=-1) != 0) | (np.diff(line, prepend=-1) != 0)
    if begins.all():
        return units
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    different, unit = np.unique(units, return_inverse=True)
    dialogue = np.cumsum(begins) - 1 + len(different)
    size = int(dialogue[-1]) + 1
    edges = coo_array((np.ones(len(units), bool), (unit, dialogue)), shape=(size, size))
    component = connected_components(edges, directed=False)[1][unit]
    return smallest_of_group(component, units)


def group_split(
    groups: np.ndarray,
    questions: np.ndarray,
    tiebreak: np.ndarray,
    train_fraction: float,
    seed: int,
    held_out_phrasings: int,
    hold_out_facts: bool,
) -> Split:
    """Hold out phrasings of trained facts, whole facts, or both.

    Args:
        groups: a key of the fact that each pair states, (pairs,) uint64; 0 for none, which is always trained.
        questions: key of the normalised question, (pairs,) uint64; pairs of a fact that ask the same are one phrasing.
        tiebreak: key of the pair itself.
        train_fraction: share of the facts that is trained, if facts are held out.
        seed: random seed of the split.
        held_out_phrasings: phrasings held out of each trained fact that has more of them; 0 for none.
        hold_out_facts: whether facts are held out whole.

    Raises:
        UserError: no pair has a group, or nothing is left to hold out.
    """
    if not groups.any():
        raise UserError("data.split: no pair has a group; name its column by data.group=...", "data.split")
    why = zeros(len(groups), np.int8)
    if hold_out_facts:
        first = _first_held_out(groups, train_fraction, seed)
        for block in blocks(len(groups)):
            why[block][(groups[block] != 0) & (_drawn(groups[block], seed) >= first)] = UNSEEN_FACT
    if held_out_phrasings:
        _hold_out_phrasings(why, groups, questions, seed, held_out_phrasings)
    if not why.any():
        raise UserError(
            f"data.split: no fact has more than {max(held_out_phrasings, 1)} phrasings, so none is held out",
            "data.split",
        )
    order, _ = random_order(tiebreak, tiebreak, seed)
    split = by_mask(order, each_block(lambda block: block != SEEN, why, bool))
    return split._replace(held_out=each_block(lambda block: why[block], split.validation, np.int8))


def _first_held_out(groups: np.ndarray, train_fraction: float, seed: int) -> np.uint64:
    """Random number of the first fact that is held out; facts with smaller numbers are trained."""
    stated = where(len(groups), lambda block: groups[block] != 0)
    drawn = joined((_drawn(np.unique(keys), seed) for _, keys in slices([groups], stated)), np.uint64)
    if len(drawn) < 2 and groups.all():
        raise UserError("the pairs cannot be split: all have one group; choose another data.split", "data.split")
    trained = min(max(round(train_fraction * len(drawn)), 1), len(drawn) - 1)
    for _, numbers in slices([drawn]):
        if trained < len(numbers):
            return np.uint64(np.partition(numbers, trained)[trained])
        trained -= len(numbers)
    raise AssertionError("no fact is left to hold out")


def _hold_out_phrasings(why: np.ndarray, groups: np.ndarray, questions: np.ndarray, seed: int, number: int) -> None:
    """Mark `number` random phrasings of each trained fact in `why`."""
    trained = where(len(groups), lambda block: (groups[block] != 0) & (why[block] == SEEN))
    for places, facts, asked in slices([groups, questions], trained):
        # The draw depends on fact and question: otherwise a wording shared by all facts would be held out everywhere.
        drawn = _drawn(facts ^ _drawn(asked, seed), seed)  # different for the phrasings of a fact
        order, fact_begins, phrasing_begins = sort_by(facts, drawn)
        fact, phrasing = np.cumsum(fact_begins) - 1, np.cumsum(phrasing_begins)
        first = phrasing[fact_begins]  # of each fact
        last = np.append(first[1:] - 1, phrasing[-1:])
        is_first = phrasing - first[fact] < number
        has_more = last - first >= number
        why[places[order[is_first & has_more[fact]]]] = UNSEEN_PHRASING


def given_split(train: np.ndarray, validation: np.ndarray, test: np.ndarray, tiebreak: np.ndarray, seed: int) -> Split:
    """A split that files define; the order of each side depends on the seed and the texts of the pairs."""

    def drawn(side: np.ndarray) -> np.ndarray:
        keys = each_block(lambda block: tiebreak[block], side, np.uint64)
        order, _ = random_order(keys, keys, seed)
        return each_block(lambda block: side[block], order, np.int32)

    return Split(drawn(train), drawn(validation), drawn(test), np.zeros(len(validation), np.int8))


def leaks(split: Split, normalised: np.ndarray) -> dict[str, int]:
    """Count the held-out pairs whose question is that of a trained pair, except for case, spaces and final punctuation.

    Args:
        split: the sides.
        normalised: key of each pair's normalised question.
    """
    found = np.zeros(4, np.int64)
    for _, keys, sides in slices([normalised, side_of_pairs(split, len(normalised))]):
        trained = np.sort(keys[sides == 1])
        keys, sides = keys[sides > 1], sides[sides > 1]
        if len(trained):
            is_trained = trained[np.minimum(np.searchsorted(trained, keys), len(trained) - 1)] == keys
            found += np.bincount(sides[is_trained], minlength=4)
    return {"validation": int(found[2]), "test": int(found[3])}


def side_of_pairs(split: Split, count: int) -> np.ndarray:
    """Number of each pair's side, (count,) int8: 1 for train, 2 for validation, 3 for test, 0 for none."""
    side_of = zeros(count, np.int8)
    for number, side in enumerate(split[:3], start=1):
        for block in blocks(len(side)):
            side_of[side[block]] = number
    return side_of


def random_order(units: np.ndarray, tiebreak: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Order pairs by a random number of their unit, and within a unit by a random number of the pair.

    Returns:
        order: indices of the pairs, int32.
        borders: positions in `order` at which a new unit begins.
    """
    order, borders = Gathered(np.int32), Gathered(np.int64)
    for places, drawn in slices([each_block(lambda block: _drawn(block, seed), units, np.uint64)]):
        by = np.argsort(drawn, kind="stable")  # different units have different numbers
        places, drawn = places[by], drawn[by]
        same = drawn[1:] == drawn[:-1]
        tied = np.zeros(len(places), bool)  # most units are one pair: only the others need the second key
        tied[1:] = same
        tied[:-1] |= same
        members = places[tied]
        places[tied] = members[np.lexsort((_drawn(tiebreak[members], seed), drawn[tied]))]
        if order.count and len(places):
            borders.add(np.array([order.count]))
        borders.add(np.flatnonzero(~same) + 1 + order.count)
        order.add(places)
    return order.array(), borders.array()


def by_mask(order: np.ndarray, held_out: np.ndarray) -> Split:
    """A split by a mask of the pairs to hold out, (pairs,) bool; both sides keep the order."""

    def places(wanted: bool) -> np.ndarray:
        parts = (order[block] for block in blocks(len(order)))
        return joined((part[held_out[part] == wanted] for part in parts), np.int32)

    return two_sides(places(False), places(True))


def two_sides(train: np.ndarray, validation: np.ndarray) -> Split:
    """A split without test pairs and without reasons for holding out pairs."""
    return Split(train, validation, np.zeros(0, np.int32), np.zeros(len(validation), np.int8))


def _drawn(keys: np.ndarray, seed: int) -> np.ndarray:
    """A pseudo-random number for each key: SplitMix64's finaliser (Steele, Lea and Flood, 2014) of key and seed. It is
    a bijection for each seed, and the same on every machine."""
    with np.errstate(over="ignore"):
        mixed = keys.astype(np.uint64)  # in place from here, because copies of millions of keys take time
        mixed += np.uint64(seed + 1) * np.uint64(0x9E3779B97F4A7C15)
        mixed ^= mixed >> np.uint64(30)
        mixed *= np.uint64(0xBF58476D1CE4E5B9)
        mixed ^= mixed >> np.uint64(27)
        mixed *= np.uint64(0x94D049BB133111EB)
        mixed ^= mixed >> np.uint64(31)
        return mixed

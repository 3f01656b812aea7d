"""Which pairs are trained and which are held out."""

import random
from typing import NamedTuple

from qa_lm.data.pairs import Pair


class Split(NamedTuple):
    """The two sides of a split, each in its shuffled order."""

    train: list[Pair]
    validation: list[Pair]


def shuffled_split(pairs: list[Pair], train_fraction: float, seed: int) -> Split:
    """Shuffle as `random.seed(seed); random.shuffle(pairs)` does, then cut: the first share is trained.

    Each side has at least one pair.
    """
    order = list(pairs)
    random.Random(seed).shuffle(order)
    cut = min(max(int(train_fraction * len(order)), 1), len(order) - 1)
    return Split(order[:cut], order[cut:])

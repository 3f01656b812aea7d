"""What the recipe looks at: sizes of the prepared pairs."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Sizes:
    """What the rules look at."""

    lengths: np.ndarray
    """Inputs of each trained pair."""
    longest: int
    """Inputs of the longest pair of all."""
    answer: float
    """Tokens of a trained answer, its EOS included, on average."""
    row: int | None
    """Positions of a packed row, None without packing."""
    entries: int
    """Of the vocabulary."""
    wordings: float = 1.0
    """Trained pairs of each fact, on average."""


def wordings(groups: np.ndarray) -> float:
    """How many of the trained pairs state one fact, on average.

    Args:
        groups: a key of the fact that each states, 0 for none.
    """
    stated = groups[groups != 0]
    facts = len(np.unique(stated)) + len(groups) - len(stated)
    return len(groups) / max(1, facts)

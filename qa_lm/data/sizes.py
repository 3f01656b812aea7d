"""Sizes of the prepared pairs, from which the recipe chooses settings."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Sizes:
    """Sizes of the prepared pairs."""

    lengths: np.ndarray
    """Number of inputs of each trained pair."""
    longest: int
    """Number of inputs of the longest pair."""
    answer: float
    """Mean number of tokens of a trained answer (EOS included)."""
    row: int | None
    """Positions of a packed row; None without packing."""
    vocab_size: int
    """Number of tokens in the vocabulary."""
    paraphrases: float = 1.0
    """Mean number of trained pairs per fact."""


def mean_paraphrases(groups: np.ndarray) -> float:
    """Mean number of trained pairs per fact.

    Args:
        groups: key of the fact that each pair states; 0 for a pair without a group, which counts as its own fact.
    """
    stated = groups[groups != 0]
    facts = len(np.unique(stated)) + len(groups) - len(stated)
    return len(groups) / max(1, facts)

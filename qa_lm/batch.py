"""What a training step gets: the one structure that data makes and modeling takes."""

from typing import NamedTuple

from torch import Tensor

UNTRAINED = -100
"""Target of a position that carries no loss."""


class Batch(NamedTuple):
    """Encoded pairs in rows, one pair per row, padded on the right.

    Shapes are (rows, time) where no other is named. Padding needs no attention mask: it stands after every real token,
    where a causal model cannot see it, and its targets are `UNTRAINED` by position, never by id, so a PAD id that
    equals EOS does no harm.
    """

    inputs: Tensor
    """Token ids, int64; the example without its last id."""
    targets: Tensor
    """The id that follows each input, int64, or `UNTRAINED`."""
    positions: Tensor
    """Position of each token in its example, int64, from 0."""
    pair: Tensor
    """Which pair of this batch a position belongs to, int64, from 0; -1 for padding."""
    in_answer: Tensor
    """Whether the target belongs to the answer, its EOS included; bool."""
    indices: Tensor
    """Place in the table of each of the batch's pairs, (pairs,), int64."""
    pairs: int
    """Number of pairs."""
    tokens: int
    """Number of real (unpadded) inputs."""

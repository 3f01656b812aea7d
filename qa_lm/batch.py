"""The batch of a training step: the only structure that `qa_lm.data` passes to `qa_lm.modeling`."""

from typing import NamedTuple

from torch import Tensor

UNTRAINED = -100
"""Target of a position that carries no loss."""


class Batch(NamedTuple):
    """Encoded pairs in rows, one pair per row, padded on the right.

    Shapes are (rows, time) unless stated otherwise. Padding needs no attention mask: it follows every real token, where
    a causal model cannot see it. Its targets are `UNTRAINED` by position, never by id, so the PAD id may equal EOS.
    """

    inputs: Tensor
    """Token ids of the example without its last one, int64."""
    targets: Tensor
    """Id that follows each input, int64, or `UNTRAINED`."""
    positions: Tensor
    """Position of each token in its example, int64, from 0."""
    pair: Tensor
    """Index, within this batch, of the pair that a position belongs to, int64, from 0; -1 for padding."""
    in_answer: Tensor
    """Whether the target belongs to the answer (EOS included), bool."""
    indices: Tensor
    """Index in the table of each pair of the batch, (pairs,), int64."""
    pairs: int
    """Number of pairs."""
    tokens: int
    """Number of real (unpadded) inputs."""

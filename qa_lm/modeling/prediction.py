"""The most likely next token and its probability, from hidden states, in chunks: no gradients, no logits kept."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

CHUNK_LOGITS = 1 << 22
"""Most logits at once, 16 MB of float32: more are no faster and let the end of a run need more memory than training."""
CHUNK_ROWS = 256
"""Rows at once at least: with a large vocabulary fewer are slower."""


class Predicted(NamedTuple):
    """At each of (positions,)."""

    ids: Tensor
    """The most likely next token, int64."""
    log_probabilities: Tensor
    """Its log-probability, in nats, float32."""
    eos_log_probabilities: Tensor
    """That of EOS."""


def predicted(hidden: Tensor, head: nn.Linear, eos_id: int) -> Predicted:
    """What follows each position.

    Args:
        hidden: the body's output at the positions (positions, hidden_size).
        head: hidden state to logits.
        eos_id: the EOS token.
    """
    rows = max(CHUNK_ROWS, CHUNK_LOGITS // head.out_features)
    chunks = hidden.split(rows) if len(hidden) else (hidden,)
    return Predicted(*(torch.cat(each) for each in zip(*(best_token(head(c), eos_id) for c in chunks), strict=True)))


def best_token(logits: Tensor, eos_id: int) -> Predicted:
    """The same from logits (positions, vocabulary)."""
    logits = logits.float()
    total = logits.logsumexp(-1)
    best, ids = logits.max(-1)
    return Predicted(ids, best - total, logits[:, eos_id] - total)

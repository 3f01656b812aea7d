"""Predict the most likely next token from hidden states, in chunks, without gradients and without keeping logits."""

from typing import NamedTuple

import torch
from torch import Tensor
from transformers import PreTrainedModel

from qa_lm.modeling.causal_lm import head, logits

CHUNK_LOGITS = 1 << 22
"""Maximum logits at once, 16 MB in float32; more would not be faster, but could need more memory than training."""
CHUNK_ROWS = 256
"""Minimum rows at once: with a large vocabulary, fewer are slower."""


class Prediction(NamedTuple):
    """The predicted next token at each position."""

    ids: Tensor
    """Most likely next token, (positions,), int64."""
    log_probabilities: Tensor
    """Log-probability of that token, in nats, (positions,), float32."""
    eos_log_probabilities: Tensor
    """Log-probability of EOS, in nats, (positions,), float32."""


def predict_tokens(model: PreTrainedModel, hidden: Tensor, eos_id: int) -> Prediction:
    """Predict the token after each position.

    Args:
        model: a causal LM in eval mode.
        hidden: its hidden states, (positions, hidden_size).
        eos_id: id of EOS.
    """
    rows = max(CHUNK_ROWS, CHUNK_LOGITS // head(model).out_features)
    chunks = hidden.split(rows) if len(hidden) else (hidden,)
    predictions = (best_token(logits(model, chunk), eos_id) for chunk in chunks)
    return Prediction(*(torch.cat(each) for each in zip(*predictions, strict=True)))


def best_token(logits: Tensor, eos_id: int) -> Prediction:
    """Predict the token after each position from logits, (positions, vocabulary)."""
    logits = logits.float()
    total = logits.logsumexp(-1)
    best, ids = logits.max(-1)
    return Prediction(ids, best - total, logits[:, eos_id] - total)

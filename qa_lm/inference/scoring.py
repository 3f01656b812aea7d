"""Log-probabilities of given continuations of prompts, in packed forward passes."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from qa_lm.data.batches.batching import PackedRows
from qa_lm.modeling.causal_lm import head, hidden_states
from qa_lm.modeling.causal_lm import logits as logits_of
from qa_lm.modeling.prediction import CHUNK_LOGITS, CHUNK_ROWS

POSITIONS = 4096
"""Positions of a forward pass."""
MIN_ROW = 64
"""Minimum positions of a row."""
OUTSIDE = -100.0
"""Log-probability, in nats, of a token that does not fit into the model's context."""


class PackedTexts(NamedTuple):
    """Some of the texts in rows of one forward pass."""

    inputs: np.ndarray
    """Token ids, int64, (rows, row_tokens)."""
    positions: np.ndarray
    """Position of each token in its text, int64, (rows, row_tokens)."""
    starts: dict[int, tuple[int, int]]
    """Row and first column of each text, by its index."""


def pack_texts(texts: Sequence[list[int]], packed: bool = True) -> Iterator[PackedTexts]:
    """Assign texts to rows, at most about `POSITIONS` positions at once.

    Args:
        texts: token ids, each text with at least one.
        packed: whether several texts may share a row.
    """
    lengths = np.array([len(text) for text in texts], np.int64)
    row_tokens = max(MIN_ROW, 1 << int(lengths.max() - 1).bit_length())
    at_once = max(1, POSITIONS // row_tokens)
    planned = PackedRows(np.arange(len(texts)), lengths, False, 0, at_once, row_tokens) if packed else ()
    rows = [row.examples for row in planned] if packed else [[number] for number in range(len(texts))]
    for begin in range(0, len(rows), at_once):
        batch = rows[begin : begin + at_once]
        inputs, positions = (np.zeros((len(batch), row_tokens), np.int64) for _ in range(2))
        starts: dict[int, tuple[int, int]] = {}
        for row, numbers in enumerate(batch):
            start = 0
            for number in map(int, numbers):
                end = start + len(texts[number])
                inputs[row, start:end] = texts[number]
                positions[row, start:end] = np.arange(end - start)
                starts[number] = row, start
                start = end
        yield PackedTexts(inputs, positions, starts)


class Continued(NamedTuple):
    """A continuation of a prompt, and what to score."""

    prompt: list[int]
    ids: list[int]
    """Ids of the continuation."""
    scored_from: int = 0
    """Index of the first id whose log-probability is wanted."""
    next_ids: tuple[int, ...] = ()
    """Ids whose log-probability after the whole continuation is wanted."""


@torch.inference_mode()
def score_continuations(
    model: PreTrainedModel, continuations: Sequence[Continued], packed: bool = True
) -> list[list[float]]:
    """Return the log-probabilities, in nats, of the ids from `scored_from` on and then of `next_ids`.

    Args:
        model: a causal LM in eval mode, whose logits are `head(body(x))`.
        continuations: prompts of at least one token with their continuations.
        packed: whether several texts may share a row.
    """
    context = model.config.max_position_embeddings
    texts = [(each.prompt + each.ids)[:context] for each in continuations]
    scores: list[list[float]] = [[] for _ in continuations]
    for part in pack_texts(texts, packed) if texts else ():
        columns, places, tokens = [], [], []  # per text; where to read the logits, and of which token
        for number, (row, start) in part.starts.items():
            each = continuations[number]
            first = len(each.prompt) + each.scored_from - 1
            wanted = each.ids[each.scored_from :]
            steps = [*range(first, first + len(wanted)), *[first + len(wanted)] * len(each.next_ids)]
            inside = [step for step in steps if step < context]
            columns.append((number, len(inside), len(steps)))
            places += [row * part.inputs.shape[1] + start + step for step in inside]
            tokens += [*wanted, *each.next_ids][: len(inside)]
        found = iter(_log_probabilities(model, part, places, tokens).tolist())
        for number, inside_count, count in columns:
            scores[number] = [next(found) for _ in range(inside_count)] + [OUTSIDE] * (count - inside_count)
    return scores


def _log_probabilities(model: PreTrainedModel, part: PackedTexts, places: list[int], tokens: list[int]) -> Tensor:
    """Log-probability of each token at its flat place, (tokens,), float32."""
    inputs, positions = (torch.from_numpy(each).to(model.device) for each in (part.inputs, part.positions))
    unique, inverse = np.unique(np.array(places, np.int64), return_inverse=True)
    hidden = hidden_states(model, inputs, positions).flatten(0, 1)[torch.from_numpy(unique).to(model.device)]
    linear, wanted = head(model), np.array(tokens, np.int64)
    rows = max(CHUNK_ROWS, CHUNK_LOGITS // linear.out_features)
    found = torch.zeros(len(tokens))
    for begin in range(0, len(unique), rows):
        logits = logits_of(model, hidden[begin : begin + rows]).float()
        here = np.flatnonzero((inverse >= begin) & (inverse < begin + rows))
        row, token = (torch.from_numpy(each).to(model.device) for each in (inverse[here] - begin, wanted[here]))
        found[torch.from_numpy(here)] = (logits[row, token] - logits.logsumexp(-1)[row]).cpu()
    return found

"""Log-probabilities of given continuations of prompts."""

import copy
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from qa_lm.data.batches.batching import PackedRows
from qa_lm.modeling.causal_lm import context_of, head, hidden_states, packs_exactly
from qa_lm.modeling.causal_lm import logits as logits_of
from qa_lm.modeling.custom_model import continues_from_cache
from qa_lm.modeling.prediction import CHUNK_LOGITS, CHUNK_ROWS

POSITIONS = 4096
"""Positions of a forward pass."""
PADDING = 64
"""Positions of padding that cost more than another forward pass."""
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

    prompt: int
    """Index of the prompt."""
    ids: list[int]
    """Ids of the continuation."""
    scored_from: int = 0
    """Index of the first id whose log-probability is wanted."""
    next_ids: Sequence[int] = ()
    """Ids whose log-probability after the whole continuation is wanted."""

    @property
    def inputs(self) -> list[int]:
        """Ids that the model must read: the last one only if something follows it."""
        return self.ids if self.next_ids else self.ids[:-1]


class Scorer:
    """Scores continuations of prompts; the prompts run once, into a key-value cache that all continuations share.

    Some models continue no cache: with them, each continuation runs together with its prompt.

    Args:
        model: a causal LM in eval mode, whose logits are `head(body(x))`.
        prompts: prompts of at least one token.
    """

    def __init__(self, model: PreTrainedModel, prompts: Sequence[list[int]]) -> None:
        self.model = model
        self.prompts = prompts
        self.context = context_of(model)
        self.cached = CachedPrompts(model, prompts) if continues_from_cache(model) else None
        self.packed = self.cached is None and packs_exactly(model)

    @torch.inference_mode()
    def __call__(self, continuations: Sequence[Continued]) -> list[np.ndarray]:
        """Return the log-probabilities, in nats, of the ids from `scored_from` on and then of `next_ids`."""
        scores: dict[int, np.ndarray] = {}
        parts = self._hidden_from_cache(continuations) if self.cached else self._hidden_of_whole_texts(continuations)
        for hidden, starts in parts:
            asked = [continuations[number] for number in starts]
            scores.update(zip(starts, self._scores(hidden, list(starts.values()), asked), strict=True))
        return [scores[number] for number in range(len(continuations))]

    def _hidden_of_whole_texts(self, continuations: Sequence[Continued]) -> Iterator[tuple[Tensor, dict[int, int]]]:
        """Hidden states, (places, hidden_size), and the place of the first token of each text by its index."""
        texts = [(self.prompts[each.prompt] + each.inputs)[: self.context] for each in continuations]
        for part in pack_texts(texts, self.packed):
            inputs, positions = (torch.from_numpy(each).to(self.model.device) for each in (part.inputs, part.positions))
            hidden = hidden_states(self.model, inputs, positions).flatten(0, 1)
            yield hidden, {n: row * inputs.shape[1] + start for n, (row, start) in part.starts.items()}

    def _hidden_from_cache(self, continuations: Sequence[Continued]) -> Iterator[tuple[Tensor, dict[int, int]]]:
        """The same, but of each text only from the last token of its prompt on."""
        assert self.cached
        rows = [(each.prompt, each.inputs) for each in continuations]
        for numbers in _passes([len(ids) for _, ids in rows], self.cached.width):
            hidden = self.cached.hidden_after([rows[number] for number in numbers])
            lengths = [min(len(self.prompts[rows[number][0]]), self.context) for number in numbers]
            starts = {n: row * hidden.shape[1] - lengths[row] + 1 for row, n in enumerate(numbers)}
            yield hidden.flatten(0, 1), starts

    def _scores(self, hidden: Tensor, starts: list[int], asked: list[Continued]) -> list[np.ndarray]:
        """The scores of continuations whose texts start at these places."""
        first = [len(self.prompts[each.prompt]) + each.scored_from - 1 for each in asked]
        wanted = [len(each.ids) - each.scored_from for each in asked]
        steps = [
            np.minimum(np.arange(count + len(each.next_ids)), count) + begin
            for begin, count, each in zip(first, wanted, asked, strict=True)
        ]
        places = np.concatenate([start + each for start, each in zip(starts, steps, strict=True)])
        tokens = np.concatenate([np.array([*each.ids[each.scored_from :], *each.next_ids], np.int64) for each in asked])
        inside = np.concatenate(steps) < self.context
        found = np.full(len(tokens), OUTSIDE, np.float32)
        found[inside] = _log_probabilities(self.model, hidden, places[inside], tokens[inside])
        return np.split(found, np.cumsum([len(each) for each in steps])[:-1])


def _passes(lengths: Sequence[int], before: int) -> list[list[int]]:
    """Numbers of the texts of each forward pass; similar lengths share one.

    Args:
        lengths: length of each text.
        before: positions before each text.
    """
    passes: list[list[int]] = []
    for number in sorted(range(len(lengths)), key=lambda number: lengths[number]):
        length, rows = lengths[number], len(passes[-1]) if passes else 0
        padding = rows * (length - lengths[passes[-1][-1]]) if passes else 0
        if not passes or padding > PADDING or (rows + 1) * (before + length) > POSITIONS:
            passes.append([])
        passes[-1].append(number)
    return passes


class CachedPrompts:
    """Prompts in a key-value cache, padded on the left."""

    def __init__(self, model: PreTrainedModel, prompts: Sequence[list[int]]) -> None:
        self.model = model
        self.context = context_of(model)
        prompts = [prompt[: self.context] for prompt in prompts]
        self.lengths = torch.tensor([len(prompt) for prompt in prompts])
        self.width = int(self.lengths.max())
        self.mask = (torch.arange(self.width) >= self.width - self.lengths[:, None]).long()
        self.cache = DynamicCache(config=model.config)
        padded = torch.tensor([[0] * (self.width - len(prompt)) + prompt for prompt in prompts])
        positions = (self.mask.cumsum(1) - 1).clamp(min=0)
        self.last = self._run(padded, positions, self.mask, self.cache)[:, -1:]
        """Hidden states of the last token of each prompt, (prompts, 1, hidden_size)."""

    def hidden_after(self, rows: Sequence[tuple[int, list[int]]]) -> Tensor:
        """Hidden states of the last token of a prompt and of the tokens after it, (rows, 1 + tokens, hidden_size).

        Args:
            rows: index of the prompt, and the tokens after it.
        """
        prompts = torch.tensor([prompt for prompt, _ in rows])
        last = self.last[prompts.to(self.last.device)]
        width = max(len(ids) for _, ids in rows)
        if not width:
            return last
        inputs = torch.tensor([ids + [0] * (width - len(ids)) for _, ids in rows])
        positions = (self.lengths[prompts, None] + torch.arange(width)).clamp(max=self.context - 1)
        mask = torch.cat([self.mask[prompts], torch.ones_like(inputs)], 1)
        return torch.cat([last, self._run(inputs, positions, mask, self._selected(prompts))], 1)

    @torch.inference_mode()
    def _run(self, inputs: Tensor, positions: Tensor, mask: Tensor, cache: DynamicCache) -> Tensor:
        """Run the body, and append to the cache."""
        device = self.model.device
        shown = None if mask.all() else mask.to(device)
        return hidden_states(self.model, inputs.to(device), positions.to(device), shown, cache)

    def _selected(self, prompts: Tensor) -> DynamicCache:
        """A new cache with these prompts."""
        cache = copy.copy(self.cache)
        cache.layers = [copy.copy(layer) for layer in self.cache.layers]
        cache.batch_select_indices(prompts.to(self.model.device))
        return cache


def _log_probabilities(model: PreTrainedModel, hidden: Tensor, places: np.ndarray, tokens: np.ndarray) -> np.ndarray:
    """Log-probability of each token after its place, (tokens,), float32."""
    unique, inverse = np.unique(places, return_inverse=True)
    rows = max(CHUNK_ROWS, CHUNK_LOGITS // head(model).out_features)
    found = np.zeros(len(tokens), np.float32)
    for begin in range(0, len(unique), rows):
        part = hidden[torch.from_numpy(unique[begin : begin + rows]).to(hidden.device)]
        logits = logits_of(model, part).float()
        here = np.flatnonzero((inverse >= begin) & (inverse < begin + rows))
        row, token = (torch.from_numpy(each).to(hidden.device) for each in (inverse[here] - begin, tokens[here]))
        found[here] = (logits[row, token] - logits.logsumexp(-1)[row]).cpu().numpy()
    return found

"""Log-probabilities of the tokens of a text, for clients that ask for `logprobs`."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from transformers import PreTrainedModel

from qa_lm.data.tokenizer import TextTokenizer
from qa_lm.modeling.causal_lm import hidden_states, logits
from qa_lm.modeling.prediction import CHUNK_ROWS


@dataclass(frozen=True)
class TokenScores:
    """The tokens of a text; each list has an item per token."""

    texts: list[str]
    log_probabilities: list[float | None]
    """In nats; None for the first token of a text, which nothing predicts."""
    top: list[list[tuple[str, float]] | None]
    """The most likely tokens at this position and the token itself, the most likely first."""
    offsets: list[int]
    """Offset of the first character in the text."""

    def __getitem__(self, part: slice) -> "TokenScores":
        return TokenScores(self.texts[part], self.log_probabilities[part], self.top[part], self.offsets[part])


@torch.inference_mode()
def token_scores(model: PreTrainedModel, tokenizer: TextTokenizer, ids: list[int], count: int) -> TokenScores:
    """Score each token of a text.

    Args:
        model: a causal LM in eval mode.
        tokenizer: its tokenizer.
        ids: the text; at least one token.
        count: number of the most likely tokens at each position.
    """
    texts = [token_text(tokenizer, token) for token in ids]
    values: list[float | None] = [None]
    top: list[list[tuple[str, float]] | None] = [None]
    inputs = torch.tensor([ids[:-1]], device=model.device)
    if inputs.numel():
        hidden = hidden_states(model, inputs, torch.arange(len(ids) - 1, device=model.device)[None])[0]
        for begin in range(0, len(hidden), CHUNK_ROWS):
            of_rows = logits(model, hidden[begin : begin + CHUNK_ROWS]).float().log_softmax(-1)
            targets = ids[begin + 1 : begin + 1 + len(of_rows)]
            found = of_rows.gather(1, torch.tensor(targets, device=of_rows.device)[:, None])[:, 0].tolist()
            best = of_rows.topk(min(count, of_rows.shape[1]))
            values += found
            likely = zip(best.indices.tolist(), best.values.tolist(), strict=True)
            for token, value, (others, of_others) in zip(targets, found, likely, strict=True):
                top.append(_named(tokenizer, [*zip(others, of_others, strict=True)], (token, value)))
    return TokenScores(texts, values, top, _offsets(texts))


def _named(
    tokenizer: TextTokenizer, likely: Sequence[tuple[int, float]], own: tuple[int, float]
) -> list[tuple[str, float]]:
    pairs = [*likely] if any(token == own[0] for token, _ in likely) else [*likely, own]
    return [(token_text(tokenizer, token), value) for token, value in pairs]


def token_text(tokenizer: TextTokenizer, token: int) -> str:
    """The text of a token; its name in the vocabulary if it is special, or part of a character."""
    text = tokenizer.decode([token])
    return text if text and "\ufffd" not in text else tokenizer.token(token) or ""


def _offsets(texts: Sequence[str]) -> list[int]:
    offsets = [0]
    for text in texts[:-1]:
        offsets.append(offsets[-1] + len(text))
    return offsets

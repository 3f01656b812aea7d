"""The answers to a client, in the shapes of the OpenAI API."""

import time
import uuid
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from qa_lm.evaluation.replies import Reply
from qa_lm.serving.protocol.errors import encoded
from qa_lm.serving.token_scores import TokenScores

SURE, FAIRLY_SURE = 0.9, 0.6
"""Smallest probabilities of being right that these words stand for."""
DONE = b"data: [DONE]\n\n"


def confidence_word(probability: float | None) -> str | None:
    """The probability of being right as a word; None if it is not known."""
    if probability is None:
        return None
    return "sure" if probability >= SURE else "fairly sure" if probability >= FAIRLY_SURE else "unsure"


def reply_details(reply: Reply, seed: int | None) -> dict[str, Any]:
    """The field `qa_lm` of an answer: what is known about it. A withheld answer is not in it.

    Args:
        reply: the reply.
        seed: the seed of a sampled answer.
    """
    answer, explanation = reply.answer, reply.explanation
    found: dict[str, Any] = {
        "probability": answer.probability,
        "confidence": confidence_word(answer.probability),
        "abstained": bool(reply.abstained),
        "mode": answer.mode,
        "log_probability": answer.log_probability,
        "in_file": answer.in_file,
    }
    if explanation:
        found |= {"question_is": explanation.question_is, "nearest": [asdict(each) for each in explanation.nearest]}
    return found if seed is None else found | {"seed": seed}


def usage(prompt_tokens: int, completion_tokens: int) -> dict[str, int]:
    """The number of tokens of a request."""
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
    }


class Envelope:
    """What all objects of one answer share.

    Args:
        model: the name of the model.
        chat: whether it answers a chat.
    """

    def __init__(self, model: str, chat: bool) -> None:
        self.chat = chat
        name, kind = ("chatcmpl", "chat.completion") if chat else ("cmpl", "text_completion")
        self._head = {"id": f"{name}-{uuid.uuid4().hex}", "object": kind, "created": int(time.time()), "model": model}

    def whole(self, choices: list[dict[str, Any]], counted: dict[str, int], **more: Any) -> dict[str, Any]:
        """The answer in one piece."""
        return self._head | {"choices": choices, "usage": counted} | more

    def chunk(self, choices: list[dict[str, Any]], **more: Any) -> bytes:
        """A piece of the answer, as an event of a stream."""
        kind = "chat.completion.chunk" if self.chat else "text_completion"
        return event(self._head | {"object": kind, "choices": choices} | more)

    def choice(self, text: str, finish_reason: str | None, index: int = 0, **more: Any) -> dict[str, Any]:
        """The one choice of the answer."""
        content: dict[str, Any] = {"message": {"role": "assistant", "content": text}} if self.chat else {"text": text}
        return {"index": index, **content, "finish_reason": finish_reason, "logprobs": None} | more

    def delta(self, text: str, finish_reason: str | None = None, **more: Any) -> dict[str, Any]:
        """A piece of the one choice."""
        content: dict[str, Any] = {"delta": {"content": text} if text else {}} if self.chat else {"text": text}
        return {"index": 0, **content, "finish_reason": finish_reason, "logprobs": None} | more


def event(content: object) -> bytes:
    """An event of a stream."""
    return b"data: " + encoded(content) + b"\n\n"


def completion_logprobs(scores: TokenScores) -> dict[str, Any]:
    """Log-probabilities as /v1/completions reports them."""
    return {
        "tokens": scores.texts,
        "token_logprobs": scores.log_probabilities,
        "top_logprobs": [dict(each) if each else None for each in scores.top],
        "text_offset": scores.offsets,
    }


def chat_logprobs(scores: TokenScores) -> dict[str, Any]:
    """Log-probabilities as /v1/chat/completions reports them."""
    content = []
    for text, value, top in zip(scores.texts, scores.log_probabilities, scores.top, strict=True):
        content.append(_token(text, value) | {"top_logprobs": [_token(*each) for each in top or ()]})
    return {"content": content}


def _token(text: str, log_probability: float | None) -> dict[str, Any]:
    return {"token": text, "logprob": log_probability, "bytes": list(text.encode("utf-8", "replace"))}


def events_of(error: dict[str, Any]) -> Iterator[bytes]:
    """The end of a stream that failed."""
    yield event(error)
    yield DONE

"""What a client asks for: a chat completion or a text completion.

Unknown fields are ignored. A field that is known and cannot be done is refused, because the answer would be another one
than was asked for.
"""

import secrets
from dataclasses import dataclass
from typing import Any

from qa_lm.inference.sampling import GREEDY, Sampling
from qa_lm.serving.protocol.errors import ApiError
from qa_lm.serving.protocol.fields import Fields

ROLES = ("system", "developer", "user", "assistant")
MOST_PROMPTS = 256
"""Prompts of one request."""
MOST_STOPS, MOST_LOGPROBS = 16, 20
LARGEST = 2**31 - 1
NOT_DONE: dict[str, tuple[tuple[Any, ...], str]] = {
    "n": ((1,), "this model gives one answer"),
    "best_of": ((1,), "this model gives one answer"),
    "tools": (([],), "this model calls no tools"),
    "tool_choice": (("none", "auto"), "this model calls no tools"),
    "functions": (([],), "this model calls no functions"),
    "function_call": (("none", "auto"), "this model calls no functions"),
    "response_format": (({"type": "text"},), "only text is written"),
    "modalities": ((["text"],), "only text is written"),
    "audio": ((), "only text is written"),
    "logit_bias": (({},), "the choice of tokens cannot be biased"),
    "presence_penalty": ((0,), "tokens cannot be penalised"),
    "frequency_penalty": ((0,), "tokens cannot be penalised"),
    "suffix": (("",), "text can only be continued"),
}
"""Fields that cannot be done: the values that change nothing, and the reason."""


@dataclass(frozen=True)
class Message:
    """A message of a conversation."""

    role: str
    content: str


@dataclass(frozen=True)
class Options:
    """How the text is to be written and sent."""

    max_new_tokens: int | None
    """None for what the server was started with."""
    sampling: Sampling
    stop: tuple[str, ...]
    """Texts before which the answer ends."""
    stream: bool
    include_usage: bool
    """Whether a stream ends with a chunk that counts tokens."""
    logprobs: int | None
    """Number of the most likely tokens that are reported at each position; None for no log-probabilities."""


@dataclass(frozen=True)
class ChatRequest:
    """A request to /v1/chat/completions."""

    messages: tuple[Message, ...]
    columns: dict[str, str]
    """Texts of further columns of the prompt, from `qa_lm.columns`."""
    options: Options


@dataclass(frozen=True)
class CompletionRequest:
    """A request to /v1/completions."""

    prompts: list[str | list[int]]
    echo: bool
    options: Options


def chat_request(fields: Fields) -> ChatRequest:
    """Read the fields of a chat.

    Raises:
        ApiError: a field is wrong.
    """
    given = fields.items("messages")
    if not given:
        raise fields.wrong("messages", "must be a list with at least a message of the user")
    messages = tuple(_message(each, f"messages.{number}") for number, each in enumerate(given))
    if not any(message.role == "user" for message in messages):
        raise fields.wrong("messages", "must contain a message of the user")
    logprobs = (fields.whole("top_logprobs", 0, MOST_LOGPROBS) or 0) if fields.flag("logprobs") else None
    limits = [fields.whole(name, 1, LARGEST) for name in ("max_completion_tokens", "max_tokens")]
    return ChatRequest(messages, _columns(fields), _options(fields, limits[0] or limits[1], logprobs))


def completion_request(fields: Fields) -> CompletionRequest:
    """Read the fields of a completion.

    Raises:
        ApiError: a field is wrong.
    """
    echo = fields.flag("echo")
    limit = fields.whole("max_tokens", 0, LARGEST)
    if limit == 0 and not echo:
        raise fields.wrong("max_tokens", "0 needs echo")
    options = _options(fields, limit, fields.whole("logprobs", 0, MOST_LOGPROBS))
    return CompletionRequest(_prompts(fields), echo, options)


def _options(fields: Fields, limit: int | None, logprobs: int | None) -> Options:
    for name, (allowed, reason) in NOT_DONE.items():
        value = fields.content.get(name)
        if value is not None and value not in allowed:
            raise fields.wrong(name, f"is not supported: {reason}")
    stream, include_usage = fields.flag("stream"), False
    if more := fields.fields("stream_options"):
        include_usage = more.flag("include_usage")
    return Options(limit, _sampling(fields), _stops(fields), stream, include_usage, logprobs)


def _sampling(fields: Fields) -> Sampling:
    """Greedy, unless the request asks for sampling: by a temperature above 0, or by a top_p below 1."""
    temperature, top_p = fields.number("temperature", 0, 2), fields.number("top_p", 0, 1)
    seed = fields.whole("seed", -(2**63), 2**63 - 1)
    if temperature is None:
        temperature = 0.0 if top_p is None or top_p == 1 else 1.0
    if temperature == 0 or top_p == 0:
        return GREEDY
    return Sampling(temperature, 0, 1.0 if top_p is None else top_p, secrets.randbits(31) if seed is None else seed)


def _stops(fields: Fields) -> tuple[str, ...]:
    given = fields.content.get("stop")
    if given is None:
        return ()
    stops = [given] if isinstance(given, str) else given
    if not isinstance(stops, list) or len(stops) > MOST_STOPS or not all(isinstance(each, str) for each in stops):
        raise fields.wrong("stop", f"must be a string, or a list of at most {MOST_STOPS} strings")
    return tuple(stop for stop in stops if stop)


def _message(given: object, place: str) -> Message:
    if not isinstance(given, dict):
        raise ApiError(f"{place}: must be an object", param=place)
    fields = Fields(given, place)
    role = fields.text("role")
    if role not in ROLES:
        raise fields.wrong("role", f"must be one of {', '.join(ROLES)}")
    content = given.get("content")
    if content is None and role == "assistant":
        return Message(role, "")
    if isinstance(content, list):
        content = "".join(_part(each, f"{place}.content.{number}") for number, each in enumerate(content))
    if not isinstance(content, str):
        raise fields.wrong("content", "must be a string, or a list of parts of text")
    return Message("system" if role == "developer" else role, content)


def _part(given: object, place: str) -> str:
    if not isinstance(given, dict):
        raise ApiError(f"{place}: must be an object", param=place)
    fields = Fields(given, place)
    if (kind := fields.text("type")) != "text":
        raise fields.wrong("type", f"is not supported: this model reads only text, not {kind}")
    if (text := fields.text("text")) is None:
        raise fields.wrong("text", "is missing")
    return text


def _columns(fields: Fields) -> dict[str, str]:
    ours = fields.fields("qa_lm")
    columns = ours and ours.fields("columns")
    return {name: columns.text(name) or "" for name in columns.content} if columns else {}


def _prompts(fields: Fields) -> list[str | list[int]]:
    given = fields.content.get("prompt")
    prompts: list[Any] = given if isinstance(given, list) and given and not _are_ids(given) else [given]
    if len(prompts) > MOST_PROMPTS:
        raise fields.wrong("prompt", f"must be at most {MOST_PROMPTS} prompts")
    if not all(isinstance(each, str) or (isinstance(each, list) and each and _are_ids(each)) for each in prompts):
        raise fields.wrong(
            "prompt", "must be a string, a list of strings, a list of token ids, or a list of such lists"
        )
    return prompts


def _are_ids(values: list[Any]) -> bool:
    return all(type(value) is int for value in values)

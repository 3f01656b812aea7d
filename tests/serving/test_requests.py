"""Requests that are wrong: a status of their own, OpenAI's shape, the field that is wrong; never a status of 500."""

import json
import string

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.serving.served import chat

USER = {"role": "user", "content": "What is 2 + 2?"}


@pytest.mark.parametrize(
    ("body", "param", "words"),
    [
        ({}, "messages", "must be a list with at least a message"),
        ({"messages": []}, "messages", "at least a message"),
        ({"messages": "Hello"}, "messages", "must be a list"),
        ({"messages": ["Hello"]}, "messages.0", "must be an object"),
        ({"messages": [{"role": "system", "content": "x"}]}, "messages", "a message of the user"),
        ({"messages": [USER, {"role": "tool", "content": "x"}]}, "messages.1.role", "must be one of system"),
        ({"messages": [{"role": "user", "content": None}]}, "messages.0.content", "a string"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]},
            "messages.0.content.0.type",
            "only text",
        ),
        ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "messages.0.content.0.text", "is missing"),
        ({"messages": [{"role": "user", "content": " \n"}]}, "messages", "the question is empty"),
        (chat("x", n=2), "n", "one answer"),
        (chat("x", tools=[{"type": "function"}]), "tools", "calls no tools"),
        (chat("x", response_format={"type": "json_object"}), "response_format", "only text"),
        (chat("x", presence_penalty=0.5), "presence_penalty", "penalised"),
        (chat("x", max_tokens=0), "max_tokens", "must be a whole number from 1"),
        (chat("x", max_tokens=True), "max_tokens", "must be a whole number"),
        (chat("x", max_completion_tokens=1.5), "max_completion_tokens", "must be a whole number"),
        (chat("x", temperature="hot"), "temperature", "must be a number from 0 to 2"),
        (chat("x", temperature=2.1), "temperature", "from 0 to 2"),
        (chat("x", top_p=-0.1), "top_p", "from 0 to 1"),
        (chat("x", seed=0.5), "seed", "whole number"),
        (chat("x", stream="yes"), "stream", "true or false"),
        (chat("x", stream_options={"include_usage": 1}), "stream_options.include_usage", "true or false"),
        (chat("x", stop=[1]), "stop", "strings"),
        (chat("x", model=7), "model", "must be a string"),
        (chat("x", qa_lm={"columns": {"context": "y"}}), "qa_lm.columns", "context is not a column"),
        (chat("word " * 999), "messages", "this model's context is 256"),
    ],
)
def test_a_wrong_chat(server, body, param, words):
    assert_refused(server.post("chat/completions", body), 400, param, words)


@pytest.mark.parametrize(
    ("body", "param", "words"),
    [
        ({}, "prompt", "must be a string"),
        ({"prompt": ""}, "prompt", "is empty"),
        ({"prompt": []}, "prompt", "must be a string"),
        ({"prompt": [[1, 2], "x", 3.5]}, "prompt", "must be a string"),
        ({"prompt": [1, -1]}, "prompt", "token ids must be from 0"),
        ({"prompt": [10**9]}, "prompt", "token ids must be from 0"),
        ({"prompt": ["x"] * 257}, "prompt", "at most 256"),
        ({"prompt": "x", "max_tokens": 0}, "max_tokens", "0 needs echo"),
        ({"prompt": "x", "logprobs": 21}, "logprobs", "from 0 to 20"),
        ({"prompt": "x", "suffix": "y"}, "suffix", "only be continued"),
        ({"prompt": ["x", "y"], "stream": True}, "stream", "takes one prompt"),
    ],
)
def test_a_wrong_completion(server, body, param, words):
    assert_refused(server.post("completions", body), 400, param, words)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"7",
        b'"x"',
        b"\xff",
        b'{"a": ' + b"9" * 5000 + b"}",
        b"[" * 100_000,
        b'{"messages": "\\ud800"}',
    ],
)
def test_a_body_that_is_not_an_object(server, body):
    response = httpx.post(server.url + "v1/chat/completions", content=body, timeout=60)
    assert_refused(response, 400, None, "body")


def test_another_model_and_other_paths(server):
    assert_refused(server.post("chat/completions", chat("x", model="gpt-4o")), 404, "model", "no model gpt-4o")
    assert_refused(server.get("v1/nothing"), 404, None, "Not Found")
    assert_refused(server.get("v1/chat/completions"), 405, None, "Method Not Allowed")


def assert_refused(response, status, param, words):
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    error = response.json()["error"]
    assert list(error) == ["message", "type", "param", "code"]
    assert (error["type"], error["param"]) == ("invalid_request_error", param)
    assert words in error["message"]


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=12),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(string.ascii_letters, max_size=8), inner, max_size=3)
    ),
    max_leaves=6,
)
FIELDS = (
    *("messages", "prompt", "model", "stream", "stream_options", "temperature", "top_p", "seed", "stop", "max_tokens"),
    *(
        "max_completion_tokens",
        "logprobs",
        "top_logprobs",
        "echo",
        "n",
        "tools",
        "qa_lm",
        "response_format",
        "logit_bias",
    ),
)
SOUND = st.sampled_from([{}, {"messages": [USER]}, {"prompt": "x"}, {"prompt": [1, 2]}])
BODIES = st.one_of(
    st.binary(max_size=40),
    st.builds(
        lambda sound, more: json.dumps({"max_tokens": 2} | sound | more).encode(),
        SOUND,
        st.dictionaries(st.sampled_from(FIELDS), VALUES, max_size=4),
    ),
    st.builds(
        lambda role, content: json.dumps({"max_tokens": 1, "messages": [{"role": role, "content": content}]}).encode(),
        st.sampled_from(["user", "system", "assistant", "tool", 1, None]),
        VALUES,
    ),
)
PATHS = st.sampled_from(["v1/chat/completions", "v1/completions"])


def assert_no_request_breaks(server, count):
    statuses = set()
    with httpx.Client(base_url=server.url, timeout=60) as client:

        @settings(max_examples=count, deadline=None, suppress_health_check=[HealthCheck.too_slow])
        @given(path=PATHS, body=BODIES)
        def ask(path, body):
            status = client.post(path, content=body).status_code
            statuses.add(status)
            assert status < 500

        ask()
    assert {200, 400} <= statuses
    assert server.ask("What is 2 + 2?")["choices"]
    assert server.get("health").json() == {"status": "ok"}


def test_no_request_breaks_the_server(server):
    assert_no_request_breaks(server, 200)


@pytest.mark.slow
def test_ten_thousand_requests_do_not_break_the_server(server):
    assert_no_request_breaks(server, 10_000)

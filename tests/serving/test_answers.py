"""What the server answers: the same as ask.py, in the shapes of the OpenAI API."""

import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from qa_lm.data.encoding import encode_prompts
from qa_lm.evaluation.explanation import explainer_of
from qa_lm.inference.sampling import Sampling
from tests.serving.served import chat, served, texts

QUESTION = "What is 2 + 2?"


def test_every_answer_and_probability_is_that_of_ask(server, served_run, answerer, learnt_run, script, tmp_path):
    questions = [answer.question for answer in learnt_run.answers]
    (tmp_path / "questions.txt").write_text("\n".join(questions))
    asked = script("ask.py", str(served_run), "--file", "questions.txt", "--json", "--explain")
    assert asked.returncode == 0, asked.stderr
    probabilities = set()
    for line, ours in zip(asked.stdout.splitlines(), learnt_run.answers, strict=True):
        record = json.loads(line)
        found = server.ask(record["question"])
        (choice,) = found["choices"]
        assert choice["message"] == {"role": "assistant", "content": record["answer"]}
        assert record["answer"] == ours.generated
        assert choice["finish_reason"] == ("stop" if ours.stopped else "length")
        details = found["qa_lm"]
        for name in ("probability", "log_probability"):
            assert details[name] == pytest.approx(record[name], abs=1e-5)
        for name in ("mode", "in_file", "question_is", "nearest"):
            assert details[name] == record[name]
        probabilities.add(details["confidence"])
    assert {"sure"} < probabilities <= {"sure", "fairly sure", "unsure"}


def test_the_shape_of_an_answer(server, answerer):
    found = server.ask(QUESTION, model=server.get("v1/models").json()["data"][0]["id"], user="ignored", top_p=1)
    assert found["object"] == "chat.completion"
    assert found["id"].startswith("chatcmpl-")
    assert found["choices"][0]["index"] == 0
    prompt = len(encode_prompts([QUESTION], answerer.tokenizer, answerer.template)[0])
    (answer,) = answerer.answer([QUESTION], 64)
    counted = {"prompt_tokens": prompt, "completion_tokens": answer.tokens, "total_tokens": prompt + answer.tokens}
    assert found["usage"] == counted


def test_the_models(server, served_run):
    found = server.get("v1/models").json()
    (entry,) = found["data"]
    assert (found["object"], entry["id"], entry["object"]) == ("list", served_run.name, "model")
    assert entry["qa_lm"]["conversation"] == "only the last message of the user"
    assert (entry["qa_lm"]["mode"], entry["qa_lm"]["max_tokens"], entry["qa_lm"]["context"]) == ("free", 64, 256)
    assert server.get(f"v1/models/{served_run.name}").json() == entry
    assert server.get("v1/models/none").status_code == 404


def test_only_the_last_question_counts(server):
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "How are you?"},
        {"role": "assistant", "content": None},
        {"role": "user", "content": [{"type": "text", "text": "What is "}, {"type": "text", "text": "2 + 2?"}]},
    ]
    found = server.post("chat/completions", {"messages": messages}).json()
    assert found["choices"] == server.ask(QUESTION)["choices"]


@pytest.mark.parametrize("path", ["chat/completions", "completions"])
def test_a_stream_has_the_words_as_they_are_decoded(server, path):
    body: dict[str, Any] = {"stream_options": {"include_usage": True}}
    body |= chat(QUESTION) if path.startswith("chat") else {"prompt": QUESTION}
    whole = server.post(path, {key: value for key, value in body.items() if key != "stream_options"}).json()
    *events, last = server.events(path, body)
    assert last["choices"] == []
    assert last["usage"] == whole["usage"]
    assert all(event["usage"] is None for event in events)
    reasons = [event["choices"][0]["finish_reason"] for event in events]
    assert reasons == [None] * (len(events) - 1) + ["stop"]
    if path == "completions":
        assert "".join(event["choices"][0]["text"] for event in events) == whole["choices"][0]["text"]
    else:
        assert texts(events) == whole["choices"][0]["message"]["content"]
        assert events[0]["choices"][0]["delta"]["role"] == "assistant"
        assert events[-1]["qa_lm"]["probability"] == pytest.approx(whole["qa_lm"]["probability"], abs=1e-5)
    assert len([event for event in events if texts_of(event)]) > 3
    assert len({event["id"] for event in events}) == 1


def texts_of(event):
    choice = event["choices"][0]
    return choice.get("text") or choice.get("delta", {}).get("content")


def test_an_error_before_the_first_word_of_a_stream_has_a_status(server):
    response = server.post("chat/completions", chat("word " * 999, stream=True))
    assert response.status_code == 400
    assert response.json()["error"]["code"] == "context_length_exceeded"


def test_requests_that_come_together_are_answered_together(server, answerer, learnt_run):
    """Each with a limit of its own, some of them bad; no answer differs from that to the question alone."""
    before = server.metric("batches_total")
    whole = {each.question: each for each in answerer.answer([each.question for each in learnt_run.answers], 64)}
    bodies = [chat(question, max_tokens=limit) for question in whole for limit in (1, 2, 3, 5, 40)]
    bodies += [chat("word " * 999), chat(" ")] * 5
    with ThreadPoolExecutor(30) as pool, httpx.Client(base_url=server.url, timeout=60) as client:
        found = list(pool.map(lambda body: client.post("v1/chat/completions", json=body), bodies))
    assert server.metric("batches_total") - before < len(bodies)
    for body, response in zip(bodies, found, strict=True):
        question = body["messages"][0]["content"]
        assert response.status_code == (200 if question in whole else 400)
        if question in whole:
            (choice,) = response.json()["choices"]
            stopped = whole[question].stopped and whole[question].tokens < body["max_tokens"]
            assert choice["finish_reason"] == ("stop" if stopped else "length")
            assert whole[question].answer.startswith(choice["message"]["content"])
            assert (choice["message"]["content"] == whole[question].answer) or not stopped
            assert response.json()["usage"]["completion_tokens"] == min(body["max_tokens"], whole[question].tokens)


def test_samples_are_those_of_ask_by_their_seed(server, answerer):
    def sample(**more):
        return server.ask(QUESTION, temperature=2, max_completion_tokens=12, **more)

    expected = answerer.answer([QUESTION], 12, Sampling(2.0, 0, 0.9, 7))[0].answer
    found = sample(seed=7, top_p=0.9)
    assert found["choices"][0]["message"]["content"] == expected
    assert found["qa_lm"]["seed"] == 7
    seeds = {sample()["qa_lm"]["seed"] for _ in range(3)}
    assert len(seeds) == 3
    greedy = server.ask(QUESTION, temperature=0, top_p=0.5, seed=1)
    other = server.ask(QUESTION, temperature=0.7, top_p=0)
    assert "seed" not in greedy["qa_lm"]
    assert "seed" not in other["qa_lm"]
    assert greedy["choices"] == other["choices"] == server.ask(QUESTION)["choices"]


def test_a_stop_text_ends_an_answer(server):
    whole = server.ask(QUESTION)["choices"][0]["message"]["content"]
    word = whole.split()[-1]
    for stop in (word, ["not there", word]):
        (choice,) = server.ask(QUESTION, stop=stop)["choices"]
        assert (choice["message"]["content"], choice["finish_reason"]) == (whole[: whole.index(word)], "stop")
        assert texts(server.events("chat/completions", chat(QUESTION, stop=stop))) == whole[: whole.index(word)]


def test_raw_prompts(server, answerer):
    prompts = [QUESTION, "How are you?"]
    (ids, _) = answerer.tokenizer.encode(prompts)
    wanted = server.post("completions", {"prompt": QUESTION}).json()["choices"][0]["text"]
    assert wanted == f" {server.ask(QUESTION)['choices'][0]['message']['content']}"
    for prompt in (prompts, [ids, ids], ids):
        choices = server.post("completions", {"prompt": prompt}).json()["choices"]
        assert [choice["index"] for choice in choices] == [0] if prompt == ids else [0, 1]
        assert choices[0]["text"] == wanted


def test_log_probabilities_of_prompt_and_answer(server, answerer):
    body = {"prompt": QUESTION, "max_tokens": 64, "logprobs": 3}
    (choice,) = server.post("completions", body).json()["choices"]
    (answer,) = answerer.answer([QUESTION], 64)
    values = choice["logprobs"]["token_logprobs"]
    assert len(values) == answer.tokens + 1  # EOS
    assert sum(values) / len(values) == pytest.approx(answer.log_probability, abs=1e-4)
    for text, value, top in zip(choice["logprobs"]["tokens"], values, choice["logprobs"]["top_logprobs"], strict=True):
        assert top[text] == value == max(top.values())  # greedy
        assert len(top) == 3
    (echoed,) = server.post("completions", body | {"echo": True}).json()["choices"]
    assert echoed["text"] == QUESTION + choice["text"]
    count = len(answerer.tokenizer.encode([QUESTION])[0])
    assert echoed["logprobs"]["token_logprobs"][0] is None
    assert echoed["logprobs"]["token_logprobs"][count:] == values
    assert "".join(echoed["logprobs"]["tokens"][:count]) == QUESTION
    assert echoed["logprobs"]["text_offset"][count] == len(QUESTION)
    (scored,) = server.post("completions", body | {"echo": True, "max_tokens": 0}).json()["choices"]
    assert scored["logprobs"]["token_logprobs"][1:] == pytest.approx(
        echoed["logprobs"]["token_logprobs"][1:count], abs=1e-5
    )
    again = server.post("completions", body | {"echo": True, "max_tokens": 0, "temperature": 1}).json()
    assert again["choices"] == [scored]
    (told,) = server.ask(QUESTION, logprobs=True, top_logprobs=2)["choices"]
    assert [each["logprob"] for each in told["logprobs"]["content"]] == pytest.approx(values, abs=1e-6)


def test_i_do_not_know(scripts, served_run, answerer, learnt_run, script):
    questions = [answer.question for answer in learnt_run.answers]
    said = {
        question: script("ask.py", str(served_run), question, "--abstain-below", "0.9").stdout.rstrip("\n")
        for question in questions[-4:]
    }
    with served(scripts, str(served_run), "--abstain-below", "0.9", "--no-explain") as server:
        for question, expected in said.items():
            found = server.ask(question)
            assert found["choices"][0]["message"]["content"] == expected
            assert found["qa_lm"]["abstained"] is (expected == "I don't know")
            assert "nearest" not in found["qa_lm"]
            assert texts(server.events("chat/completions", chat(question))) == expected
        assert server.get("v1/models").json()["data"][0]["qa_lm"]["abstains_below"] == 0.9
        assert server.metric("abstained_total") == 2 * list(said.values()).count("I don't know")
    assert "I don't know" in said.values()


def test_answers_from_the_file(scripts, served_run, answerer, learnt_run):
    from qa_lm.config.enums import AnswerMode

    question = "what's 2 plus 2?"
    (expected,) = answerer.answer([question], 64, mode=AnswerMode.nearest)
    explainer = explainer_of(served_run, answerer.known)
    assert explainer
    (told,) = explainer.explain([question], AnswerMode.nearest)
    with served(scripts, str(served_run), "--mode", "nearest") as server:
        found = server.ask(question)
        assert found["choices"][0]["message"]["content"] == expected.answer
        assert (found["qa_lm"]["mode"], found["qa_lm"]["in_file"]) == ("nearest", True)
        assert [each["question"] for each in found["qa_lm"]["nearest"]] == [each.question for each in told.nearest]
        assert texts(server.events("chat/completions", chat(question))) == expected.answer
        refused = server.post("chat/completions", chat(question, temperature=1))
        assert refused.status_code == 400
        assert refused.json()["error"]["param"] == "temperature"


def test_the_counts(server):
    before = {name: server.metric(name) for name in ("request_seconds_count", 'tokens_total{direction="out"}')}
    written = server.ask(QUESTION)["usage"]["completion_tokens"]
    text = server.get("metrics").text
    assert server.metric('tokens_total{direction="out"}') == before['tokens_total{direction="out"}'] + written
    assert 'qa_lm_requests_total{path="/v1/chat/completions",status="200"} ' in text
    assert 'qa_lm_request_seconds_bucket{le="+Inf"} ' in text
    assert server.metric("queue_length") == 0

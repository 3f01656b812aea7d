"""Other people's programs that speak the protocol: the official client, and lm-evaluation-harness."""

import json
import os
import subprocess
import sys
from importlib.util import find_spec

import pytest

from tests.conftest import ROOT
from tests.serving.served import served

QUESTION = "What is 2 + 2?"


@pytest.fixture(scope="module")
def client(server):
    openai = pytest.importorskip("openai")
    return openai.OpenAI(base_url=f"{server.url}v1", api_key="none", max_retries=0)


@pytest.mark.slow
def test_the_official_client(client, server, served_run):
    import openai

    (model,) = client.models.list().data
    assert model.id == served_run.name == client.models.retrieve(model.id).id
    messages = [{"role": "user", "content": QUESTION}]
    whole = client.chat.completions.create(model=model.id, messages=messages)
    assert whole.choices[0].message.content == server.ask(QUESTION)["choices"][0]["message"]["content"]
    assert whole.choices[0].finish_reason == "stop"
    assert whole.usage.total_tokens == whole.usage.prompt_tokens + whole.usage.completion_tokens
    assert whole.qa_lm["nearest"]
    options = {"include_usage": True}
    chunks = list(
        client.chat.completions.create(model=model.id, messages=messages, stream=True, stream_options=options)
    )
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == whole.choices[0].message.content
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1] == "stop"
    assert chunks[-1].usage == whole.usage
    written = client.completions.create(model=model.id, prompt=QUESTION, logprobs=1, echo=True)
    assert written.choices[0].text == f"{QUESTION} {text}"
    with pytest.raises(openai.NotFoundError, match="no model gpt-4o"):
        client.chat.completions.create(model="gpt-4o", messages=messages)
    with pytest.raises(openai.BadRequestError, match="one answer") as error:
        client.chat.completions.create(model=model.id, messages=messages, n=2)
    assert error.value.param == "n"
    with pytest.raises(openai.BadRequestError, match="messages"):
        client.chat.completions.create(model=model.id, messages=[])


@pytest.mark.slow
def test_the_official_client_with_a_key(scripts, served_run):
    openai = pytest.importorskip("openai")
    with served(scripts, str(served_run), "--no-explain", QA_LM_API_KEY="k") as server:
        with pytest.raises(openai.AuthenticationError):
            openai.OpenAI(base_url=f"{server.url}v1", api_key="wrong", max_retries=0).models.list()
        assert openai.OpenAI(base_url=f"{server.url}v1", api_key="k").models.list().data


@pytest.mark.slow
@pytest.mark.skipif(
    not all(find_spec(name) for name in ("lm_eval", "tenacity")),
    reason='lm_eval[api] is not installed: pip install -e ".[eval]" "lm-eval[api]"',
)
@pytest.mark.parametrize("ids", [True, False])
def test_the_harness_gives_the_exact_match_of_the_run(server, served_run, learnt_run, tmp_path, ids):
    arguments = f"base_url={server.url}v1/completions,model={served_run.name},pretrained={served_run / 'model'},"
    arguments += f"tokenizer={served_run / 'model'},tokenizer_backend=huggingface,num_concurrent=8,"
    arguments += f"tokenized_requests={ids},max_length=256"
    command = [sys.executable, "-m", "lm_eval", "run", "--model", "local-completions", "--model_args", arguments]
    command += ["--include_path", str(ROOT / "tests" / "lm_eval_task"), "--tasks", "qa_pairs"]
    pairs = {"pairs": str(learnt_run.folder / "answers.jsonl"), "pretrained": str(served_run / "model")}
    command += ["--metadata", json.dumps(pairs), "--output_path", str(tmp_path / "out")]
    offline = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "HF_HOME": str(tmp_path / "empty")}
    done = subprocess.run(command, env=os.environ | offline, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    (results,) = (tmp_path / "out").rglob("results_*.json")
    found = json.loads(results.read_text())["results"]["qa_pairs"]["exact_match,none"]
    right = [answer.exact_match for answer in learnt_run.answers]
    assert set(right) == {True, False}
    assert found == pytest.approx(sum(right) / len(right))


def test_the_harness_scores_continuations(server, answerer):
    """The request that lm-evaluation-harness sends for log-likelihoods, and how it reads the answer."""
    (prompt,), (answer,) = answerer.tokenizer.encode([QUESTION]), answerer.tokenizer.encode([" 2 + 2 equals 4."])
    body = {
        "prompt": [[*prompt, *answer]],
        "temperature": 0,
        "max_tokens": 1,
        "logprobs": 1,
        "seed": 1234,
        "echo": True,
    }
    (choice,) = server.post("completions", body).json()["choices"]
    values = choice["logprobs"]["token_logprobs"][len(prompt) : -1]
    likely = choice["logprobs"]["top_logprobs"][len(prompt) : -1]
    assert len(values) == len(answer)
    draft = answerer.answer([QUESTION], 64)[0]
    assert draft.answer == "2 + 2 equals 4."
    assert all(value == max(top.values()) for value, top in zip(values, likely, strict=True))
    assert sum(values) > -1

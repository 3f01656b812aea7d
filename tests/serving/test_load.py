"""Many clients for a long time, some of whom leave: memory stays, and no answer is lost."""

import random
import threading
import time
from typing import Any

import httpx
import psutil
import pytest

from tests.serving.served import SECONDS, chat, served

CLIENTS = 16
CHANGES: dict[str, dict[str, Any]] = {"streamed": {"stream": True}, "short": {"max_tokens": 2}, "bad": {"n": 2}}


def keep_asking(url, answers, end, seed, counts):
    """Ask until the end: plain, streamed, with a limit, badly, or leave before the answer."""
    draw = random.Random(seed)
    with httpx.Client(base_url=url, timeout=SECONDS) as client:
        while time.monotonic() < end:
            question = draw.choice(list(answers))
            kind = draw.choice(["plain", "plain", "streamed", "short", "bad", "left"])
            body = chat(question, **CHANGES.get(kind, {}))
            try:
                timeout = 0.003 if kind == "left" else SECONDS
                response = client.post("v1/chat/completions", json=body, timeout=timeout)
            except httpx.TimeoutException:
                assert kind == "left"
                continue
            counts[response.status_code] = counts.get(response.status_code, 0) + 1
            assert response.status_code == (400 if kind == "bad" else 200), response.text
            if kind in ("plain", "left"):
                assert response.json()["choices"][0]["message"]["content"] == answers[question]
            if kind == "streamed":
                assert response.text.endswith("data: [DONE]\n\n")


def soak(server, answers, seconds):
    """Ask for some seconds; returns the memory in bytes at the beginning, after warming up, and at the end."""
    process = psutil.Process(server.script.pid)
    memory = []
    for part in (0.2, 0.4, 0.4):
        counts: list[dict[int, int]] = [{} for _ in range(CLIENTS)]
        failures: list[BaseException] = []
        end = time.monotonic() + part * seconds

        def client(number, end=end, counts=counts, failures=failures):
            try:
                keep_asking(server.url, answers, end, number, counts[number])
            except BaseException as error:
                failures.append(error)

        threads = [threading.Thread(target=client, args=(number,)) for number in range(CLIENTS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failures == []
        assert all(each.get(200, 0) > 0 for each in counts)
        memory.append(process.memory_info().rss)
    assert server.metric("queue_length") == 0
    assert len(process.net_connections()) <= 2 + CLIENTS
    return memory


@pytest.mark.slow
def test_ten_minutes_of_sixteen_clients(scripts, served_run, answerer, learnt_run):
    questions = [answer.question for answer in learnt_run.answers]
    answers = {each.question: each.answer for each in answerer.answer(questions, 64)}
    with served(scripts, str(served_run)) as server:
        _, before, after = soak(server, answers, 600)
        assert after < before + 20 * 2**20
        assert server.ask(questions[0])["choices"][0]["message"]["content"] == answers[questions[0]]

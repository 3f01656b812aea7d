"""Who may ask, and what a request may cost."""

import asyncio
import socket
import time

import httpx
import pytest
from starlette.testclient import TestClient

from qa_lm.config.enums import AnswerMode
from qa_lm.evaluation.replies import Replies
from qa_lm.serving import listening
from qa_lm.serving.app import Settings, create_app
from qa_lm.serving.engine import Engine
from qa_lm.serving.security import Limits, host_name
from tests.serving.served import Served, chat, served

QUESTION = "What is 2 + 2?"


def raw(server: Served, request: bytes, seconds: float = 20) -> bytes:
    """What the server sends for these bytes until it closes the connection."""
    port = int(server.url.rstrip("/").rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port), timeout=seconds) as connection:
        connection.sendall(request)
        found = b""
        while part := connection.recv(65536):
            found += part
    return found


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost", 200),
        ("LOCALHOST:1", 200),
        ("127.0.0.1:8000", 200),
        ("[::1]:8000", 200),
        ("evil.example", 403),
        ("localhost.evil.example", 403),
        ("127.0.0.1.evil.example:8000", 403),
        ("", 403),
    ],
)
def test_a_foreign_host_is_refused(server, host, status):
    assert server.get("health", headers={"host": host}).status_code == status


@pytest.mark.parametrize(
    ("origin", "status"),
    [(None, 200), ("own", 200), ("https://evil.example", 403), ("null", 403), ("http://localhost:3000", 403)],
)
def test_a_foreign_origin_is_refused(server, origin, status):
    headers = {} if origin is None else {"origin": server.url.rstrip("/") if origin == "own" else origin}
    response = server.post("chat/completions", chat(QUESTION), headers=headers)
    assert response.status_code == status
    assert "access-control-allow-origin" not in response.headers
    if status == 403:
        assert response.json()["error"]["code"] == "origin_not_allowed"


def test_two_hosts_are_refused(server):
    found = raw(server, b"GET /health HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\nConnection: close\r\n\r\n")
    assert found.split()[1] in (b"400", b"403")


@pytest.mark.parametrize("path", ["", "page.js", "page.css", "health", "v1/models", "none"])
def test_every_response_has_the_headers(server, path):
    headers = server.get(path).headers
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert "server" not in headers


def test_a_key(scripts, served_run):
    with served(scripts, str(served_run), "--no-explain", QA_LM_API_KEY="s3cret key") as server:
        for key, status in (("s3cret key", 200), ("s3cret", 401), ("s3cret key2", 401), ("é", 401), ("x", 401)):
            headers = {"authorization": f"Bearer {key}".encode("latin-1")}
            assert server.get("v1/models", headers=headers).status_code == status
            assert server.get("metrics", headers=headers).status_code == status
        assert server.post("chat/completions", chat(QUESTION)).status_code == 401
        assert server.get("v1/models", headers={"authorization": "Basic s3cret key"}).status_code == 401
        assert server.get("v1/models").json()["error"]["code"] == "invalid_api_key"
        for path in ("", "page.js", "page.css", "health"):
            assert server.get(path).status_code == 200
        assert 'id="key"' in server.get("").text


def test_one_foreign_origin_may_be_allowed(scripts, served_run):
    options = ("--cors", "https://shop.example", "--allow-host", "qa.example:443", "--no-explain")
    with served(scripts, str(served_run), *options) as server:
        asks = {"access-control-request-method": "POST", "access-control-request-headers": "authorization"}
        for origin, status in (("https://shop.example", 200), ("https://evil.example", 403)):
            url = server.url + "v1/chat/completions"
            before = httpx.options(url, headers={"origin": origin, **asks})
            response = server.post("chat/completions", chat(QUESTION), headers={"origin": origin})
            assert (before.status_code, response.status_code) == (status, status)
            assert (response.headers.get("access-control-allow-origin") == origin) is (status == 200)
        assert server.get("health", headers={"host": "qa.example"}).status_code == 200


@pytest.mark.parametrize("chunked", [False, True])
def test_a_large_body_is_refused(server, chunked):
    def parts():
        for _ in range(3):
            yield b" " * 500_000

    content = parts() if chunked else b" " * 1_500_000
    response = httpx.post(server.url + "v1/chat/completions", content=content, timeout=20)
    assert response.status_code == 413
    assert response.json()["error"]["message"] == "the body has more than 1,000,000 bytes"


def test_a_large_body_is_refused_before_it_is_sent(server):
    head = b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000001\r\n\r\n"
    assert raw(server, head, 5).split()[1] == b"413"


def test_a_body_just_below_the_limit_is_read(server):
    body = b'{"messages": 1}' + b" " * 900_000
    assert httpx.post(server.url + "v1/chat/completions", content=body, timeout=20).status_code == 400


@pytest.fixture
def engine(answerer):
    return Engine(answerer, AnswerMode.free, {AnswerMode.free: Replies()})


def test_a_failure_of_the_server_shows_no_traceback(engine, monkeypatch, capsys):
    def fail(jobs):
        raise RuntimeError("secret/path.py")

    monkeypatch.setattr(engine, "answer", fail)
    with TestClient(create_app(engine, Settings("m", 0)), base_url="http://localhost") as client:
        for more in ({}, {"stream": True}):
            response = client.post("/v1/chat/completions", json=chat(QUESTION, **more))
            assert response.status_code == 500
            message = response.json()["error"]["message"]
            assert response.json()["error"]["type"] == "server_error"
            assert "secret" not in response.text
            number = message.split()[-1]
            log = capsys.readouterr().err
            assert f"error {number}" in log
            assert "RuntimeError: secret/path.py" in log


def test_an_error_within_a_stream_is_an_event(engine, monkeypatch, capsys):
    def fail(jobs):
        (job,) = jobs
        if job.on_token:
            job.on_token(5)
        raise RuntimeError("secret")

    monkeypatch.setattr(engine, "answer", fail)
    with TestClient(create_app(engine, Settings("m", 0)), base_url="http://localhost") as client:
        response = client.post("/v1/chat/completions", json=chat(QUESTION, stream=True))
        assert response.status_code == 200
        *_, error, done = response.text.strip().split("\n\n")
        assert done == "data: [DONE]"
        assert error.startswith('data: {"error":{"message":"the server failed')
        assert "secret" not in response.text
        assert client.get("/health").status_code == 200
    assert "RuntimeError: secret" in capsys.readouterr().err


def test_a_full_queue_and_a_slow_answer_say_when_to_come_back(engine, monkeypatch):
    def slowly(jobs):
        time.sleep(0.5)
        return []

    monkeypatch.setattr(engine, "answer", slowly)

    async def ask(settings, count):
        app = create_app(engine, settings)
        transport = httpx.ASGITransport(app)
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=transport, base_url="http://localhost") as client,
        ):
            return await asyncio.gather(
                *(client.post("/v1/chat/completions", json=chat(QUESTION)) for _ in range(count))
            )

    for settings, count in ((Settings("m", 0, most_waiting=2, seconds=0.2), 4), (Settings("m", 0, seconds=0.1), 1)):
        responses = asyncio.run(ask(settings, count))
        assert {response.status_code for response in responses} == {503}
        assert all(response.headers["retry-after"] == "1" for response in responses)
        words = {response.json()["error"]["message"].split()[0] for response in responses}
        assert words == ({"too", "the"} if count == 4 else {"the"})


def test_a_slow_body_is_refused(engine):
    app = create_app(engine, Settings("m", 0, limits=Limits(body_seconds=0.1)))

    async def ask():
        async def slowly():
            yield b"{"
            await asyncio.sleep(5)

        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost") as client:
            return await client.post("/v1/chat/completions", content=slowly())

    begin = time.monotonic()
    assert asyncio.run(ask()).status_code == 408
    assert time.monotonic() - begin < 3


def test_slow_headers_close_the_connection(monkeypatch, engine, unused_port):
    monkeypatch.setattr(listening, "HEADER_SECONDS", 0.2)
    app = create_app(engine, Settings("m", 0))
    found = asyncio.run(_slow_headers(app, unused_port))
    assert found == b""


async def _slow_headers(app, port):
    import uvicorn

    config = uvicorn.Config(app, port=port, log_level="error", http=listening._Protocol, ws="none")
    server = uvicorn.Server(config)
    server.install_signal_handlers = lambda: None  # type: ignore[attr-defined]
    task = asyncio.create_task(server._serve())
    while not server.started:
        await asyncio.sleep(0.01)
    silent, _ = await asyncio.open_connection("127.0.0.1", port)
    assert await asyncio.wait_for(silent.read(), 5) == b""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET /health HTTP/1.1\r\nHost: loc")
    found = await asyncio.wait_for(reader.read(), 5)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert (await asyncio.wait_for(reader.readline(), 5)).split()[1] == b"200"
    await asyncio.wait_for(reader.readuntil(b"}"), 5)
    await asyncio.sleep(0.4)
    writer.write(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")  # a connection may rest between two requests
    assert b" 200 " in await asyncio.wait_for(reader.readuntil(b"}"), 5)
    writer.write(b"GET /health HTTP/1.1\r\nHost: loc")
    assert await asyncio.wait_for(reader.read(), 5) == b""
    writer.close()
    server.should_exit = True
    await task
    return found


@pytest.fixture
def unused_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


@pytest.mark.parametrize(
    ("host", "name"), [("a.b:80", "a.b"), ("A.b.", "a.b"), ("[::1]:80", "::1"), ("[::1]", "::1"), ("x", "x"), ("", "")]
)
def test_the_name_in_a_host_header(host, name):
    assert host_name(host) == name

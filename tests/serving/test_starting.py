"""How the server starts and ends."""

import os
import signal
import socket
import threading
import time

import pytest

from qa_lm.commands import serve
from tests.serving.served import chat, served

QUESTION = "What is 2 + 2?"


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_ends_it_after_what_it_does(scripts, served_run, number, code):
    found = []
    with served(scripts, str(served_run), "--no-explain", "--name", "a b") as server:
        long = chat(QUESTION, temperature=2, seed=1, max_tokens=200)
        asking = threading.Thread(target=lambda: found.append(server.post("chat/completions", long)))
        asking.start()
        time.sleep(0.1)
        ended = server.signal(number)
        asking.join()
    assert (ended.returncode, ended.stderr) == (code, "")
    assert ended.stdout == f"serving a b at {server.url}\n"
    assert found[0].status_code == 200
    assert found[0].json()["usage"]["completion_tokens"] > 0


def refused(capsys, *arguments):
    """The line that a command ends with, before any model is loaded."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        assert serve.main([*map(str, arguments)]) == 2
    finally:
        signal.signal(signal.SIGTERM, before)
    found = capsys.readouterr()
    assert found.out == ""
    assert "Traceback" not in found.err
    line, *_ = [line for line in found.err.splitlines() if not line.startswith("loading")]
    return line


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--port", "70000"), "--port must be from 0 to 65535"),
        (("--host", "no.such.host.invalid"), "other machines could ask without a key; set QA_LM_API_KEY"),
        (("--host", "no.such.host.invalid", "--api-key", "x"), "no such host"),
        (("--host", "0.0.0.0"), "other machines could ask without a key"),
        (("--host", "203.0.113.1", "--api-key", "x"), "cannot be used"),
        (("--api-key", ""), "must be printable ASCII"),
        (("--cors", "*"), "--cors takes an origin"),
        (("--timeout", "nan"), "--timeout must be above 0"),
        (("--abstain-below", "2"), "--abstain-below must be from 0 to 1"),
        (("--port", "0"), "no such folder"),
    ],
)
def test_mistakes_are_one_line(capsys, tmp_path, arguments, words):
    assert words in refused(capsys, tmp_path / "none", *arguments)


def test_a_port_in_use(capsys, tmp_path, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        assert f"127.0.0.1:{port} is in use" in refused(capsys, tmp_path, "--port", port)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may use every port")
def test_a_privileged_port(capsys, tmp_path):
    assert "this user may not use it" in refused(capsys, tmp_path, "--port", 80)


def test_a_folder_without_a_model(capsys, tmp_path):
    assert "contains no model" in refused(capsys, tmp_path, "--port", 0)


def test_no_calibration_no_threshold(capsys, learnt_run):
    assert "has no calibration" in refused(capsys, learnt_run.folder, "--port", 0, "--abstain-below", "0.5")


def test_changed_weights_are_not_served(capsys, served_run, tmp_path):
    import shutil

    from safetensors.torch import load_file, save_file

    shutil.copytree(served_run / "model", tmp_path / "model")
    weights = load_file(tmp_path / "model" / "model.safetensors")
    save_file(
        {name: 0.3 * value for name, value in weights.items()},
        tmp_path / "model" / "model.safetensors",
        {"format": "pt"},
    )
    assert "when the model was saved it was" in refused(capsys, tmp_path, "--port", 0)


def test_missing_packages_are_named(capsys, tmp_path, monkeypatch):
    monkeypatch.setattr(serve, "find_spec", lambda name: None)
    assert refused(capsys, tmp_path) == 'error: starlette is not installed: pip install -e ".[serve]"'

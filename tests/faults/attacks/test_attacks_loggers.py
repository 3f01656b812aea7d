"""Loggers and a run folder from someone else: nothing is written outside it, and no server is told anything."""

import importlib.util
import math
import os
import shutil
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest

from qa_lm.config.compose import resolved_yaml
from qa_lm.config.resume import resumed_config
from qa_lm.training.logging.logged import append_record, read_record
from qa_lm.training.logging.loggers import refuse_settings
from qa_lm.training.train import train
from tests.faults.resume.interrupting import interrupted
from tests.training.test_loggers import WANDB, configuration, offline

__all__ = ["offline"]


@pytest.mark.parametrize(
    ("kind", "name"), [("csv", "csv"), ("csv", "logger.jsonl"), pytest.param("wandb", "wandb", marks=WANDB)]
)
def test_links_in_a_run_of_someone_else_lead_nowhere(kind, name, tmp_path, capsys):
    folder = interrupted(configuration(kind), tmp_path / "run", "training_step", 11)
    theirs = tmp_path / "theirs"
    kept = theirs
    if name == "logger.jsonl":
        (folder / name).unlink()
    else:
        theirs.mkdir()
        kept = theirs / "metrics.csv"
        shutil.rmtree(folder / name)
    kept.write_text("kept")
    (folder / name).symlink_to(theirs)
    assert train(configuration(kind, resume="auto"), folder).metrics["epochs_run"] == 3
    assert kept.read_text() == "kept"
    assert not theirs.is_dir() or list(theirs.iterdir()) == [kept]
    assert capsys.readouterr().out.count(f"warning: logger={kind}: ") == 1


def test_a_pipe_in_a_run_of_someone_else_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "logger.jsonl")
    with pytest.raises(OSError, match="No such device"):
        append_record(tmp_path / "logger.jsonl", {})


@pytest.mark.parametrize("name", ["wandb", ".wandb"])
def test_a_file_in_the_current_folder_does_not_say_where_wandb_sends_to(name, tmp_path):
    path = tmp_path / name / "settings"
    path.parent.mkdir()
    path.write_text("[default]\nmode = offline\n")  # as `wandb offline` leaves it
    refuse_settings(tmp_path)
    path.write_text("[default]\nmode = online\nbase_url = http://127.0.0.1:9\nentity = theirs\n")
    with pytest.raises(OSError, match=r"sets base_url, entity; only the environment \(WANDB_\*\) may"):
        refuse_settings(tmp_path)


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("wandb") is None, reason="needs wandb: pip install -e '.[wandb]'")
def test_the_key_stays_here_where_the_run_of_someone_else_is_the_current_folder(tmp_path, monkeypatch, capfd):
    asked = []

    class Theirs(BaseHTTPRequestHandler):
        def do_POST(self):
            asked.append(self.path)
            self.send_error(403)

        do_GET = do_POST

    folder = interrupted(configuration("csv"), tmp_path / "run", "training_step", 11)
    with ThreadingHTTPServer(("127.0.0.1", 0), Theirs) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        (folder / "wandb").mkdir()
        (folder / "wandb" / "settings").write_text(f"[default]\nbase_url = http://127.0.0.1:{server.server_port}\n")
        monkeypatch.chdir(folder)
        monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
        assert train(configuration("wandb", resume="auto"), folder).metrics["epochs_run"] == 3
        server.shutdown()
    assert asked == []
    assert capfd.readouterr().out.count("warning: logger=wandb: ") == 1


def test_a_run_of_someone_else_makes_no_store_of_mlflow(tmp_path, monkeypatch, capsys):
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config.yaml").write_text(resolved_yaml(configuration("mlflow")))
    composed = configuration("tensorboard", resume=".")

    def kind(*overrides: str) -> tuple[str, bool]:
        found = resumed_config(tmp_path, composed, ["resume=.", *overrides]).logger.kind
        return found, "no mlflow.db in this folder" in capsys.readouterr().out

    assert kind() == ("tensorboard", True)
    assert kind("logger=mlflow") == ("mlflow", False)
    assert kind("logger=csv") == ("csv", False)
    (tmp_path / "mlflow.db").touch()
    assert kind() == ("mlflow", False)


def test_a_record_of_someone_else(tmp_path):
    lines = [
        *("", "[" * 100_000, "5", "[]", '{"step": "1", "values": {}}', '{"step": 1, "values": {"a": "b"}}'),
        '{"step": 1, "values": {"a": [1.0]}}',
        '{"kind": "mlflow", "project": "qa_lm", "id": "../../x", "lasting": true}',
        '{"step": 3, "values": {"a": NaN}}',
        '{"step": 4, "values": {"b": 2.0',
    ]
    (tmp_path / "logger.jsonl").write_bytes(b"\x9f\xff\n" + "\n".join(lines).encode())
    found = read_record(tmp_path / "logger.jsonl")
    assert found.known == {}
    assert [(step, math.isnan(values["a"])) for step, values in found.rows] == [(3, True)]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("kind: csv", "kind: os.system", "logger.kind=os.system: must be one of tensorboard, csv, wandb, mlflow"),
        ("project: qa_lm", "project: ../../x", "logger.project=../../x: must be at most 100 letters"),
        ("project: qa_lm", "project: qa_lm\n  tracking_uri: http://theirs", "is not a valid configuration of a run"),
    ],
)
def test_settings_of_someone_elses_run(old, new, message, tmp_path, script):
    folder = interrupted(configuration("csv"), tmp_path / "run", "training_step", 11)
    text = (folder / "config.yaml").read_text()
    assert text.count(old) == 1
    (folder / "config.yaml").write_text(text.replace(old, new))
    done = script("train.py", f"resume={folder}")
    assert done.returncode == 2
    assert message in done.stderr

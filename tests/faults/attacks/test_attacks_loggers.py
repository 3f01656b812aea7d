"""Loggers and a run folder from someone else: nothing is written outside it, and no server is told anything."""

import importlib.util
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest

from qa_lm.errors import UserError
from qa_lm.training.logging.loggers import _known_ids, build_loggers, refuse_settings
from qa_lm.training.train import train
from tests.faults.resume.interrupting import interrupted
from tests.training.test_loggers import configuration, offline

__all__ = ["offline"]


@pytest.mark.parametrize("name", ["csv", "wandb", "csv/version_0", "csv/version_0/metrics.csv"])
@pytest.mark.parametrize("is_there", [True, False])
def test_links_in_a_run_of_someone_else_lead_nowhere(name, is_there, tmp_path):
    theirs, link = tmp_path / "theirs", tmp_path / "run" / name
    if is_there:
        theirs.mkdir()
    link.parent.mkdir(parents=True)
    link.symlink_to(theirs)
    with pytest.raises(UserError, match=f"{name}: links to outside the run folder"):
        build_loggers(configuration("csv"), tmp_path / "run", 7)
    link.unlink()
    (tmp_path / "run" / "inside").symlink_to(tmp_path / "run")  # as wandb's own
    assert len(build_loggers(configuration("csv"), tmp_path / "run", 7)) == 2


@pytest.mark.parametrize("name", ["wandb", ".wandb"])
def test_a_file_in_the_current_folder_does_not_say_where_wandb_sends_to(name, tmp_path):
    path = tmp_path / name / "settings"
    path.parent.mkdir()
    path.write_text("[default]\nmode = offline\n")  # as `wandb offline` leaves it
    refuse_settings(tmp_path)
    path.write_text("[default]\nmode = online\nbase_url = http://127.0.0.1:9\nentity = theirs\n")
    with pytest.raises(UserError, match=r"sets base_url, entity, which only the environment \(WANDB_\*\) may"):
        refuse_settings(tmp_path)


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("wandb") is None, reason="needs wandb: pip install -e '.[wandb]'")
def test_the_key_stays_here_where_the_run_of_someone_else_is_the_current_folder(tmp_path, monkeypatch):
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
        with pytest.raises(UserError, match="settings: sets base_url"):
            train(configuration("wandb", resume="auto"), folder)
        server.shutdown()
    assert asked == []


@pytest.mark.parametrize(
    "text",
    ["", "5", "[]", "[" * 100_000, '{"wandb": 5}', '{"wandb": "../../x", "mlflow": "a b"}', '{"a": "A' + "b" * 64],
)
def test_ids_of_someone_else(text, tmp_path):
    path = tmp_path / "loggers.json"
    path.write_text('{"wandb": "abcd1234", "mlflow": "../../x"}')
    assert _known_ids(tmp_path) == {"wandb": "abcd1234"}
    path.rename(tmp_path / "theirs")
    path.symlink_to(tmp_path / "theirs")
    assert _known_ids(tmp_path) == {}
    path.unlink()
    path.write_bytes(b"\x9f" + text.encode())
    assert _known_ids(tmp_path) == {}
    path.write_text(text)
    assert _known_ids(tmp_path) == {}


def test_settings_of_someone_elses_run(tmp_path, script):
    folder = interrupted(configuration("csv"), tmp_path / "run", "training_step", 11)
    text = (folder / "config.yaml").read_text()
    ours = "_target_: lightning.pytorch.loggers.CSVLogger\n    name: csv\n"
    assert text.count(ours) == 1
    for theirs, words in (
        ("_target_: os.system\n", "loggers.csv._target_=os.system"),
        (ours.replace("name: csv", "name: ../../x"), "loggers.csv._target_=lightning.pytorch.loggers.CSVLogger"),
        ("_target_: lightning.pytorch.loggers.MLFlowLogger\n    tracking_uri: http://theirs\n", "MLFlowLogger"),
        ("", "this run names a class, loggers.csv._target_=None"),
    ):
        (folder / "config.yaml").write_text(text.replace(ours, theirs))
        done = script("train.py", f"resume={folder}")
        assert done.returncode == 2
        assert words in done.stderr
        assert len(done.stderr.splitlines()) == 1

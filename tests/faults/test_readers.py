"""A run that is under way, read: the report, the curve, questions and evaluation work at any moment."""

import json
import os
import shutil
import signal
import threading
from pathlib import Path

import pytest

from qa_lm.errors import UserError
from qa_lm.inference.in_progress import load_answerer
from qa_lm.reporting.loss_curve import draw_loss_curve
from qa_lm.reporting.run.report import write_report
from qa_lm.training.train import train
from tests.conftest import small_config
from tests.faults.resume.interrupting import interrupted
from tests.faults.test_damage import flip
from tests.scripts_as_modules import ask, evaluate


@pytest.fixture(scope="module")
def half_done(tmp_path_factory):
    """Interrupted in its second epoch, which leaves what a run leaves that trains on: best is the first epoch's end."""
    return interrupted(small_config(), tmp_path_factory.mktemp("half") / "run", "training_step", 13)


@pytest.fixture
def copy(half_done, tmp_path):
    return Path(shutil.copytree(half_done, tmp_path / "run"))


def test_report_and_curve(copy):
    assert "tutorial" in write_report(copy).read_text()
    draw_loss_curve(copy)
    assert len((copy / "metrics.csv").read_text().splitlines()) == 2


def test_asked_is_the_best_so_far(half_done, tmp_path, script):
    """What a run of one epoch, which ended there, says."""
    ended = train(small_config(trainer__max_epochs=1), tmp_path / "ended").folder
    answers = [script("ask.py", str(run), "--json", "How are you?") for run in (half_done, ended)]
    said = [json.loads(each.stdout) for each in answers]
    assert said[0]["answer"] == said[1]["answer"]
    assert said[0]["log_probability"] == pytest.approx(said[1]["log_probability"], abs=1e-6)
    note = f"note: this run is not finished; using {half_done}/checkpoints/best.ckpt, epoch 1, step 8\n"
    assert (answers[0].returncode, answers[0].stderr) == (0, note)
    assert (answers[1].returncode, answers[1].stderr) == (0, "")


def test_evaluated_is_the_best_so_far(half_done, tmp_path, capsys):
    ended = train(small_config(trainer__max_epochs=1), tmp_path / "ended").folder
    capsys.readouterr()
    boards = []
    for run in (half_done, ended):
        assert evaluate.main([str(run), "--json", "--out", str(tmp_path / "out")]) == 0
        boards.append(json.loads(capsys.readouterr().out)["rows"])
    assert boards[0] == boards[1]
    assert boards[0][0]["n"] > 0


def test_reading_changes_nothing(copy, tmp_path):
    before = {path: path.read_bytes() for path in copy.rglob("*") if path.is_file()}
    assert ask.main([str(copy), "How are you?"]) == 0
    assert evaluate.main([str(copy), "--out", str(tmp_path / "out")]) == 0
    assert {path: path.read_bytes() for path in copy.rglob("*") if path.is_file()} == before


def test_damaged_best_weights_are_not_asked(copy, capsys):
    flip(copy / "checkpoints" / "best.ckpt", 4000)
    assert ask.main([str(copy), "How are you?"]) == 0
    assert "last.ckpt, epoch 2, step 1" in capsys.readouterr().err
    flip(copy / "checkpoints" / "last.ckpt", 4000)
    assert ask.main([str(copy), "How are you?"]) == 2
    assert capsys.readouterr().err == f"error: {copy}: this run is not finished, and its checkpoints are damaged\n"


def test_nothing_saved_yet(copy, capsys):
    for path in copy.glob("checkpoints/*.ckpt"):
        path.unlink()
    for script in (ask, evaluate):
        assert script.main([str(copy), *(["How are you?"] if script is ask else [])]) == 2
        assert capsys.readouterr().err == (
            f"error: {copy}: this run is not finished, and it has saved no weights yet (see checkpoint.every_seconds)\n"
        )


@pytest.mark.parametrize(
    ("option", "words"),
    [(["--explain"], "give the folder of a finished run"), (["--precision", "0.9"], "and 20 wrong answers")],
)
def test_what_comes_only_at_the_end_is_said_to(copy, capsys, option, words):
    assert ask.main([str(copy), "How are you?", *option]) == 2
    assert words in capsys.readouterr().err


@pytest.mark.slow
def test_while_it_trains(tmp_path, capsys):
    """Read again and again from its first checkpoint to its end, with a checkpoint at every step."""
    config = small_config(trainer__max_epochs=8, checkpoint__every_steps=1, early_stopping__patience=None)
    folder, child = tmp_path / "run", os.fork()
    if child == 0:
        train(config, folder)
        os._exit(0)
    over = threading.Event()

    def wait() -> None:
        os.waitpid(child, 0)
        over.set()

    threading.Thread(target=wait).start()
    try:
        asked: set[str] = set()
        while not over.is_set():
            if not list(folder.glob("checkpoints/*.ckpt")):
                continue
            load_answerer(folder).answer(["How are you?"], 8)
            asked |= set(capsys.readouterr().err.splitlines())
    finally:
        if not over.is_set():
            os.kill(child, signal.SIGKILL)
    assert len(asked) > 1
    assert load_answerer(folder).answer(["How are you?"], 8)
    assert capsys.readouterr().err == ""


def test_weights_of_another_model(copy):
    path = copy / "checkpoints" / "model" / "config.json"
    path.write_text(path.read_text().replace('"n_layer": 2', '"n_layer": 3'))
    with pytest.raises(UserError, match="the model cannot be loaded"):
        load_answerer(copy)


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [("attn_implementation", "owner/name", "third-party code"), ("auto_map", {"AutoConfig": "evil.Config"}, None)],
)
def test_code_of_others_is_not_run(copy, key, value, words):
    folder = copy / "checkpoints" / "model"
    (folder / "evil.py").write_text(f"open({str(copy / 'ran')!r}, 'w')\nclass Config: pass\n")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {key: value}))
    if words:
        with pytest.raises(UserError, match=words):
            load_answerer(copy)
    else:
        load_answerer(copy)
    assert not (copy / "ran").exists()

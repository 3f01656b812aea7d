"""What prevents resuming: other data, tokenizer or model, settings that cannot change, a second process."""

import errno
import json
import os
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser

from qa_lm.config.resume import resume_argument, resumed_config, run_folder_override
from qa_lm.config.schema import TrainConfig
from qa_lm.data.pairs import BUILTIN
from qa_lm.errors import FailedWrite, UserError
from qa_lm.run.lock import run_lock
from qa_lm.training.checkpointing.resume import completed_run
from qa_lm.training.train import train
from tests.conftest import ROOT, small_config
from tests.faults.resume.interrupting import interrupted, line_of


@pytest.fixture(scope="module")
def unfinished(tmp_path_factory):
    """An interrupted run on a file of pairs, and the file."""
    folder = tmp_path_factory.mktemp("unfinished")
    pairs = folder / "pairs.jsonl"
    shutil.copy(BUILTIN["tutorial"], pairs)
    config = small_config(data__path=str(pairs))
    return interrupted(config, folder / "run", "training_step", 13), pairs


def again(pairs: Path, **changes: object) -> TrainConfig:
    return small_config(data__path=str(pairs), resume="auto", **changes)


def before_and_after(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_other_pairs(unfinished, tmp_path):
    run, pairs = unfinished
    changed = tmp_path / "pairs.jsonl"
    changed.write_text(pairs.read_text().replace("Paris", "Lyon"))
    kept = before_and_after(run)
    with pytest.raises(
        UserError, match=r"run: the pairs have changed since this run started \(sha256 \w{12}, now \w{12}\)"
    ):
        train(again(changed), run)
    assert before_and_after(run) == kept


def test_the_same_pairs_elsewhere(unfinished, tmp_path):
    run, pairs = unfinished
    shutil.copytree(run, tmp_path / "run")
    moved = Path(shutil.copy(pairs, tmp_path / "moved.jsonl"))
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="The dirpath has changed")  # Lightning would forget the best score
        train(again(moved), tmp_path / "run")
    assert (tmp_path / "run" / "metrics.json").exists()
    assert not (run / "metrics.json").exists()  # the best checkpoint's path has moved with the folder


def test_another_split(unfinished):
    run, pairs = unfinished
    with pytest.raises(UserError, match="the split of the pairs has changed"):
        train(again(pairs, data__split_seed=1), run)


def test_another_tokenizer(unfinished):
    run, pairs = unfinished
    with pytest.raises(UserError, match="the tokenizer has changed"):
        train(again(pairs, tokenizer__vocab_size=280), run)


def test_another_model(unfinished):
    run, pairs = unfinished
    wanted = r"last\.ckpt: the model has changed: model\.\S+ is \(\d+, 64\) in the checkpoint and \(\d+, 32\) now"
    with pytest.raises(UserError, match=wanted):
        train(again(pairs, model__hidden_size=32), run)


def test_settings_that_can_and_cannot_change(unfinished):
    run, _pairs = unfinished
    composed = small_config(resume=str(run))
    changed = resumed_config(run, composed, [f"resume={run}", "trainer.max_epochs=7", "checkpoint.every_steps=5"])
    assert changed.trainer["max_epochs"] == 7
    assert changed.checkpoint.every_steps == 5
    assert changed.optimizer.lr == 3e-3
    assert resumed_config(run, composed, ["optimizer.lr=0.003"]).optimizer.lr == 3e-3
    for override, words in (
        ("optimizer.lr=1", "optimizer.lr=1.0: cannot change when resuming; .* was started with 0.003"),
        ("early_stopping.patience=9", "early_stopping.patience=9: cannot change when resuming; .* was started with 5"),
        ("trainer.accumulate_grad_batches=2", "trainer.accumulate_grad_batches=2: cannot change when resuming"),
        ("optimizer=muon", "optimizer=muon: when resuming, override single settings"),
        ("~trainer.max_epochs", "when resuming, override single settings"),
        ("optimiser.lr=1", "optimiser.lr: no such setting; did you mean optimizer.lr"),
        ("seed=x", "seed=x: "),
    ):
        with pytest.raises(UserError, match=words):
            resumed_config(run, composed, [override])


def test_auto_keeps_what_was_chosen_when_the_run_started(unfinished):
    run, pairs = unfinished
    stored = yaml.safe_load((run / "config.yaml").read_text())
    assert stored["compile"] is False
    config = again(pairs)
    config.trainer.pop("precision")
    assert resumed_config(run, config, []).trainer["precision"] == "32-true"
    config.seed = 1
    with pytest.raises(UserError, match=r"seed=1: cannot change when resuming; .* was started with 42"):
        resumed_config(run, config, [])


def test_a_finished_run_has_nothing_to_resume(small_run):
    config = small_config(trainer__max_epochs=25)
    found = completed_run(small_run.folder, config, config)
    assert found
    assert "this run is finished after 25 epochs; trainer.max_epochs=N continues up to epoch N" in found.message
    assert completed_run(small_run.folder, config, small_config(trainer__max_epochs=26)) is None


def test_an_early_stopped_run_says_so(tmp_path):
    (tmp_path / "metrics.json").write_text(json.dumps({"epochs_run": 3, "stopped_early": True}))
    longer = small_config(trainer__max_epochs=26)
    wanted = "this run stopped early after 3 epochs; there is nothing to resume"
    found = completed_run(tmp_path, small_config(), longer)
    assert found
    assert wanted in found.message
    assert not found.diverged
    (tmp_path / "metrics.json").write_text(json.dumps({"epochs_run": 3, "stopped_early": True, "diverged": True}))
    found = completed_run(tmp_path, small_config(), longer)
    assert found
    assert found.diverged


def test_more_epochs_for_a_finished_run(tmp_path):
    train(small_config(), tmp_path / "run")
    train(small_config(trainer__max_epochs=5, resume="auto"), tmp_path / "run")
    whole = train(small_config(trainer__max_epochs=5), tmp_path / "whole")
    assert (tmp_path / "run" / "metrics.csv").read_text() == (whole.folder / "metrics.csv").read_text()


def test_the_folder_on_the_command_line(unfinished, tmp_path):
    run, _ = unfinished
    assert resume_argument([f"resume={run}", "seed=1"]) == run
    assert resume_argument(["seed=1"]) is None
    assert resume_argument(["resume=auto"]) is None
    with pytest.raises(UserError, match=r"resume: .*nothing holds no run \(config.yaml is missing\)"):
        resume_argument([f"resume={tmp_path}/nothing"])
    with pytest.raises(UserError, match="takes one run folder"):
        resume_argument([f"resume={run},{run}", "-m"])


@pytest.mark.parametrize("folder", ["/a b/it's=x,y", r"C:\new\faq", r"\\server\new run\faq", "C:\\"])
def test_a_run_folder_of_any_name_is_an_override(folder):
    assert OverridesParser.create().parse_override(run_folder_override(Path(folder))).value() == folder


HOLD = """
import sys, time
from pathlib import Path
from qa_lm.run.lock import run_lock
with run_lock(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_two_processes_never_write_one_folder(tmp_path):
    folder = tmp_path / "run"
    command = [sys.executable, "-c", HOLD, str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as holder:
        assert line_of(holder) == "held\n"
        with pytest.raises(UserError, match=rf"run: in use by process {holder.pid} on \S+ since \S+ \S+; wait for it"):
            train(small_config(), folder)
        holder.kill()
    with run_lock(folder):  # the system has released it
        pass


def test_a_file_system_without_locks(tmp_path, monkeypatch):
    def no_locks(*_):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr("fcntl.flock", no_locks)
    with pytest.raises(FailedWrite, match=r"run: cannot be locked: No locks available; choose another folder$"):
        train(small_config(), tmp_path / "run")


def test_two_runs_of_one_second_get_two_folders(tmp_path):
    """The same command, started four times within a second."""
    script = "from qa_lm.config.compose import new_folder as new; import sys; print(new(sys.argv[1]))"
    name = str(tmp_path / "outputs" / "12-00-00")
    processes = [
        subprocess.Popen([sys.executable, "-c", script, name], stdout=subprocess.PIPE, text=True, cwd=ROOT)
        for _ in range(4)
    ]
    folders = {process.communicate(timeout=60)[0].strip() for process in processes}
    assert folders == {name, f"{name}-2", f"{name}-3", f"{name}-4"}

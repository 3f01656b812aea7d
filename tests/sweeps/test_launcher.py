"""Sweeps by `hydra/launcher=processes`: what each job leaves, and that none is lost, repeated or run by two."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir

from qa_lm.config.compose import register_schema
from qa_lm.run.lock import run_lock
from qa_lm.sweeps.identity import job_identity
from qa_lm.sweeps.processes.factory import quoted, resume_command
from qa_lm.sweeps.processes.pool import cores, share_of_gpus
from tests.conftest import ROOT
from tests.documented import QUICK
from tests.sweeps.processes import LAUNCHER, STAND_IN, sweeps, wait_until

__all__ = ["sweeps"]


def test_a_job_that_fails_or_is_killed_does_not_stop_the_rest(sweeps):
    done = sweeps.run("seed=1,2", "mode=well,raise,kill")
    assert done.returncode == 4
    assert sweeps.states() == {
        f"seed-{seed}_mode-{mode}": "finished" if mode == "well" else "failed"
        for seed in (1, 2)
        for mode in ("well", "raise", "kill")
    }
    assert set(sweeps.starts().values()) == {1}
    log = (sweeps.job("seed-2_mode-raise") / "job.log").read_text()
    assert "Traceback (most recent call last)" in log
    assert "RuntimeError: the loss went away" in log
    lines = done.stderr.splitlines()
    assert lines[0] == "jobs that failed: 4"
    assert lines[1].startswith("  seed=1 mode=raise: exit code 1: RuntimeError: the loss went away (")
    assert lines[2].startswith("  seed=1 mode=kill: killed by SIGKILL: no output (")
    assert lines[-1].startswith("to retry them: ")
    assert lines[-1].endswith(f" mode=well,raise,kill hydra.sweep.dir={quoted(str(sweeps.folder / 'sweep'))}")
    assert re.search(
        r"seed=1 mode=raise: failed, exit code 1; done 1, running \d, failed 1, remaining \d of 6, estimated end \d\d:",
        done.stdout,
    )


def test_the_same_command_again_skips_what_is_finished_and_tries_again_what_failed(sweeps):
    assert sweeps.run("mode=well,raise_once,raise").returncode == 2
    before = {path: path.read_bytes() for path in sweeps.job("mode-well").glob("*.[tj]*")}
    assert sweeps.run("mode=well,raise_once,raise").returncode == 1
    assert sweeps.states() == {"mode-well": "finished", "mode-raise_once": "finished", "mode-raise": "failed"}
    assert sweeps.starts() == {"mode-well": 1, "mode-raise_once": 2, "mode-raise": 2}
    assert {path: path.read_bytes() for path in sweeps.job("mode-well").glob("*.[tj]*")} == before
    assert (sweeps.job("mode-raise") / "job.log").read_text().count("--- start ") == 2


@pytest.mark.slow
def test_a_wider_sweep_in_the_same_folder_runs_only_what_is_new(sweeps):
    assert sweeps.run("seed=1,2").returncode == 0
    assert sweeps.run("seed=1,2,3", "lr=0.1,0.2").returncode == 0
    assert len(sweeps.records()) == 6
    assert set(sweeps.starts().values()) == {1}
    assert {"seed-1", "seed-2", "seed-3_lr-0.1"} <= set(sweeps.jobs())  # 0.1 is what seed=1,2 had


@pytest.mark.parametrize(
    ("number", "code"), [pytest.param(signal.SIGINT, 130, marks=pytest.mark.slow), (signal.SIGTERM, 143)]
)
def test_a_sweep_interrupted_at_half_goes_on_and_comes_to_what_the_jobs_come_to_alone(sweeps, number, code):
    arguments = ["seed=1,2,3,4,5", "steps=4", "pause=0.25", "hydra.launcher.jobs=2"]
    process = sweeps.start(*arguments)
    wait_until(lambda: len(sweeps.step_files()) == 4)
    process.send_signal(number)
    out, errors = process.communicate(timeout=60)
    assert process.returncode == code, errors
    before = sweeps.states()
    finished, interrupted = (list(before.values()).count(state) for state in ("finished", "interrupted"))
    assert before["seed-5"] == "left"
    assert interrupted >= 1
    assert finished + interrupted == 4
    assert f"{number.name}: waiting for {interrupted} running jobs to save and stop" in out
    lines = errors.splitlines()
    assert lines[0] == f"stopped: done {finished}, running 0, failed 0, remaining {5 - finished} of 5"
    assert re.fullmatch(r"  seed=\d: interrupted after \d+ s", lines[1])
    assert lines[-2] == "  seed=5: not started"
    assert lines[-1].startswith("to resume: ")

    done = sweeps.run(*arguments)
    assert done.returncode == 0, done.stderr
    assert sweeps.starts() == {name: 2 if state == "interrupted" else 1 for name, state in before.items()}
    for seed in range(1, 6):
        alone = [*STAND_IN, f"seed={seed}", "steps=4", "resume=auto", f"hydra.run.dir=alone{seed}"]
        assert sweeps.run(command=alone).returncode == 0
        for name in ("steps.txt", "metrics.json"):
            found = (sweeps.job(f"seed-{seed}") / name).read_bytes()
            assert found == (sweeps.folder / f"alone{seed}" / name).read_bytes()


def test_a_second_signal_ends_jobs_that_do_not_listen(sweeps):
    process = sweeps.start("mode=deaf", "pause=0.1", "steps=9999")
    sweeps.wait_for_steps(2)
    process.send_signal(signal.SIGINT)
    assert process.stdout is not None
    assert any("waiting for 1 running" in line for line in process.stdout)
    time.sleep(0.7)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=30)
    assert process.returncode == 130
    (record,) = [json.loads(path.read_text()) for path in sweeps.records()]
    assert (record["state"], record["exit_code"]) == ("interrupted", -signal.SIGKILL)


@pytest.mark.slow
def test_two_at_once_share_the_cores(sweeps):
    assert sweeps.run("seed=1,2,3,4,5", "pause=0.6", "hydra.launcher.jobs=2").returncode == 0
    moments = []
    for path in sweeps.folder.glob("sweep/*/starts.txt"):
        start, end = path.read_text().splitlines()
        assert start.endswith(f" threads {max(1, cores() // 2)}")
        moments += [(float(start.split()[1]), 1), (float(end.split()[1]), -1)]
    running = [sum(change for _, change in sorted(moments)[: place + 1]) for place in range(len(moments))]
    assert max(running) == 2


def test_one_at_a_time_has_what_a_job_alone_has(sweeps):
    sweeps.environment["OMP_NUM_THREADS"] = "7"
    assert sweeps.run("seed=1").returncode == 0
    (path,) = sweeps.folder.glob("sweep/*/starts.txt")
    assert " threads 7\n" in path.read_text()


def test_equal_jobs_of_a_sweep_run_once(sweeps):
    done = sweeps.run("lr=0.1,1e-1", "mode=well,raise", "pause=0.1", "hydra.launcher.jobs=3")
    assert done.returncode == 2, done.stderr
    assert sorted(sweeps.starts().values()) == [1, 1]
    assert done.stdout.splitlines()[-1].startswith("lr=")
    assert "done 2, running 0, failed 2, remaining 0 of 4" in done.stdout


def test_a_second_sweep_in_the_folder_is_refused(script, sweeps):
    with run_lock(sweeps.folder / "sweep"):
        done = script("train.py", "-m", *LAUNCHER, "hydra.sweep.dir=sweep", "seed=1,2")
    assert done.returncode == 2
    pattern = (
        rf"error: \S+/sweep: in use by process {os.getpid()} on \S+ since [\d-]+ [\d:]+; wait for it, or choose .*\n"
    )
    assert re.fullmatch(pattern, done.stderr)
    assert sweeps.records() == []


def test_jobs_that_a_killed_sweep_left_running_are_stopped_and_resumed(sweeps):
    arguments = ["seed=1,2,3", "mode=hang_once", "hydra.launcher.jobs=2"]
    killed = sweeps.start(*arguments)
    sweeps.wait_for_steps(2)
    killed.kill()
    killed.communicate()
    done = sweeps.run("seed=1,2", *arguments[1:])
    assert done.returncode == 0, done.stderr
    assert "stopping 2 running jobs of an earlier sweep that was killed\n" in done.stdout
    assert sweeps.starts() == {"seed-1": 2, "seed-2": 2}
    assert set(sweeps.states().values()) == {"finished", "left"}
    for path in sweeps.step_files():  # no step is done twice, or by two processes
        assert [line.split()[1] for line in path.read_text().splitlines()] == ["0", "1"]


def test_a_job_that_finished_after_its_sweep_was_killed_is_finished(sweeps):
    killed = sweeps.start("steps=2", "pause=0.3")
    sweeps.wait_for_steps(1)
    killed.kill()
    killed.communicate()
    wait_until(lambda: any(sweeps.folder.glob("sweep/*/metrics.json")))
    done = sweeps.run("steps=2", "pause=0.3")
    assert done.returncode == 0, done.stderr
    assert "already finished" in done.stdout
    assert set(sweeps.starts().values()) == {1}


def test_what_a_job_started_ends_with_it(sweeps):
    assert sweeps.run("mode=orphan").returncode == 1
    (path,) = sweeps.folder.glob("sweep/*/child.txt")
    child = Path("/proc") / path.read_text()
    wait_until(lambda: not child.exists() or "\nState:\tZ" in (child / "status").read_text(), 10)


def test_a_mistake_is_told_once_before_any_job_starts(script, sweeps):
    for arguments, message in (
        (["seed=1,2", "optimizer.lr=-1"], "error: optimizer.lr=-1.0: must be above 0 and below 10\n"),
        (["optimizer.lr=1e-3,-1"], "error: optimizer.lr=-1.0: must be above 0 and below 10\n"),
        (
            ["data=file", "data.path=none.csv", "seed=1,2"],
            "error: none.csv: cannot be read: No such file or directory\n",
        ),
        (["seed=1,2", "hydra.launcher.jobs=0"], "error: hydra.launcher.jobs=0: must be at least 1\n"),
        (
            ["seed=1,2", "trainer.max_epoch=3"],
            "error: trainer.max_epoch: lightning.Trainer has no argument max_epoch; did",
        ),
    ):
        done = script("train.py", "-m", *LAUNCHER, "hydra.sweep.dir=sweep", *arguments)
        assert done.returncode == 2, done.stderr
        assert done.stderr.startswith(message)
        assert len(done.stderr.splitlines()) == 1
        assert sweeps.records() == []


def test_a_job_is_another_when_its_settings_or_its_data_are(tmp_path):
    register_schema()
    path = tmp_path / "pairs.jsonl"

    def identity(*overrides: str) -> str:
        with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
            given = ["data=file", f"data.path={path}", *overrides]
            return job_identity(compose("train", given))

    path.write_text('{"question": "a", "answer": "b"}\n')
    first = identity()
    assert identity("resume=auto") == first
    assert identity("seed=42") == first
    assert identity("seed=43") != first
    path.write_text('{"question": "a", "answer": "c"}\n')
    os.utime(path, (1, 1))
    assert identity() != first


@pytest.mark.parametrize(
    ("started", "shown"),
    [
        (["python", "scripts/train.py"], "python scripts/train.py"),
        (["/env/python", "/env/qa-lm", "train"], "qa-lm train"),
    ],
)
def test_the_command_that_resumes_is_the_users(monkeypatch, started, shown):
    monkeypatch.setattr(sys, "orig_argv", [*started, "-m", "seed=1,2", "hydra.sweep.dir=a"])
    monkeypatch.setattr(sys, "argv", ["qa-lm train" if len(started) == 3 else started[1], "-m"])
    assert resume_command(Path("/b")) == f"{shown} -m seed=1,2 hydra.sweep.dir=/b"


@pytest.mark.parametrize(
    ("gpus", "jobs", "shares"),
    [
        ([], 2, [[], []]),
        (["0"], 2, [["0"], ["0"]]),
        (["0", "1", "2", "3"], 2, [["0", "2"], ["1", "3"]]),
        (["4", "5", "6"], 4, [["4"], ["5"], ["6"], ["4"]]),
    ],
)
def test_gpus_are_shared_out(gpus, jobs, shares):
    assert [share_of_gpus(gpus, jobs, slot) for slot in range(jobs)] == shares


def test_plugins_are_registered_once_and_can_be_sent_to_a_cluster():
    """Launchers for clusters pickle Hydra's register of plugins; what is pickled by reference must be importable."""
    source = (
        "import pickle, sys; from hydra.core.plugins import Plugins; from qa_lm.sweeps.plugins import register_plugins;"
        "[register_plugins(str) for _ in range(2)]; register = Plugins.instance();"
        "print(sorted(p.__name__ for p in register.discover() if p.__module__.startswith('qa_lm')),"
        "pickle.loads(pickle.dumps(register)).discover() == register.discover(),"
        "[m for m in ('torch', 'optuna', 'lightning', 'pyarrow') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", source], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "['OptunaSweeper', 'ProcessLauncher'] True []\n"
    assert done.stderr == ""


@pytest.mark.slow
def test_trainings_in_a_sweep_equal_the_same_trainings_alone(sweeps):
    """Three trainings, two at a time, the sweep interrupted at half and started again."""
    sweeps.environment["OMP_NUM_THREADS"] = "1"
    settings = [*QUICK, "trainer.max_epochs=12", "early_stopping.patience=null", "checkpoint.every_steps=8"]
    train = [sys.executable, str(ROOT / "scripts" / "train.py")]
    arguments = ["-m", "hydra/launcher=processes", "hydra.sweep.dir=sweep", "hydra.launcher.jobs=2", *settings]
    process = sweeps.start(*arguments, "optimizer.lr=1e-4,1e-3,3e-3", command=train)
    wait_until(lambda: len(list(sweeps.folder.glob("sweep/*/checkpoints/last.ckpt"))) >= 2, 120)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 143, errors
    assert "interrupted" in sweeps.states().values()
    done = sweeps.run(*arguments, "optimizer.lr=1e-4,1e-3,3e-3", command=train)
    assert done.returncode == 0, done.stderr
    assert max(int(str(record["starts"])) for record in sweeps.jobs().values()) == 2
    for lr in ("0.0001", "0.001", "0.003"):
        alone = sweeps.run(*settings, f"optimizer.lr={lr}", f"hydra.run.dir=alone{lr}", command=train)
        assert alone.returncode == 0, alone.stderr
        job, other = sweeps.job(f"lr-{lr}"), sweeps.folder / f"alone{lr}"
        for name in ("metrics.csv", "answers.jsonl", "model/model.safetensors"):
            assert (job / name).read_bytes() == (other / name).read_bytes(), (lr, name)


@pytest.mark.slow
def test_two_processes_to_a_training_inside_a_sweep(sweeps):
    sweeps.environment["OMP_NUM_THREADS"] = "1"
    train = [sys.executable, str(ROOT / "scripts" / "train.py"), "-m", "hydra/launcher=processes"]
    train += ["hydra.sweep.dir=sweep"]
    done = sweeps.run(*QUICK, "trainer.devices=2", "trainer.strategy=ddp", "seed=1,2", command=train)
    assert done.returncode == 0, done.stderr
    assert sweeps.states() == {"seed-1": "finished", "seed-2": "finished"}
    for path in sweeps.records():
        assert (path.parent / "metrics.json").is_file()

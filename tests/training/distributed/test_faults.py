"""Processes that die, hang or differ: every other process ends in time with a code and a line, and nothing is lost."""

import os
import random
import re
import signal
import subprocess
import time
from pathlib import Path

import psutil
import pytest

from qa_lm.training.checkpointing.comparison import first_difference
from tests.sweeps.processes import wait_until
from tests.training.distributed.equality import CASES, NORMS, command
from tests.training.distributed.launchers import free_port, start_torchrun, torchrun

pytestmark = pytest.mark.slow
LONG = ("trainer.max_epochs=400", "checkpoint.every_steps=3", "resume=auto")
TIMEOUT = 15
WITHIN = 90
"""Seconds in which all processes of a run must have ended after a fault, on a busy machine."""
LOST = "error: another process of this run ended, or did not answer within distributed.timeout_seconds"


@pytest.fixture(autouse=True)
def norms(tmp_path: Path) -> None:
    (tmp_path / "norms.py").write_text(NORMS)


def ranks(launchers: list["subprocess.Popen[str]"]) -> list[psutil.Process]:
    """The training processes that launchers have started."""
    children = [child for each in launchers for child in psutil.Process(each.pid).children(recursive=True)]
    return [child for child in children if "train.py" in " ".join(child.cmdline()) and "RANK" in child.environ()]


def two(folder: str, *more: str, strategy: str = "ddp") -> list[str]:
    return [*command(CASES["packed"], folder, 2), *LONG, f"trainer.strategy={strategy}", *more]


def end_all(launchers: list["subprocess.Popen[str]"]) -> list[str]:
    """Wait until all launchers have ended, and return what they printed."""
    return [each.communicate(timeout=WITHIN)[0] for each in launchers]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "hanging"])
@pytest.mark.parametrize("victim", [0, 1])
def test_the_other_node_ends_with_a_line(tmp_path, number, victim):
    """A process that was killed closes its connections; of one that hangs only the timeout tells."""
    launchers = start_torchrun(tmp_path, *two("run", f"distributed.timeout_seconds={TIMEOUT}"))
    try:
        wait_until(lambda: (tmp_path / "run" / "checkpoints" / "previous.ckpt").exists(), 240)
        (lost,) = ranks([launchers[victim]])
        lost.send_signal(number)
        output = launchers[1 - victim].communicate(timeout=WITHIN)[0]
        assert launchers[1 - victim].returncode != 0
        assert LOST in output
        assert f"earlier checkpoints are in {tmp_path}/run/checkpoints" in output
        assert "qa_lm/training/train.py" not in output  # a traceback of ours
    finally:
        for each in launchers:
            kill_group(each)


def kill_group(launcher: "subprocess.Popen[str]") -> None:
    if launcher.poll() is None:
        for each in ranks([launcher]):
            each.kill()
        launcher.kill()
    launcher.communicate(timeout=WITHIN)


@pytest.mark.parametrize("strategy", ["ddp", "fsdp2"])
def test_sigterm_to_the_launcher_saves_the_whole_state(tmp_path, strategy):
    (launcher,) = start_torchrun(tmp_path, *two("run", strategy=strategy), nodes=1, per_node=2)
    wait_until(lambda: (tmp_path / "run" / "checkpoints" / "previous.ckpt").exists(), 240)
    launcher.terminate()
    (output,) = end_all([launcher])
    assert output.count("terminated; the checkpoint is in") >= 1, output
    ((code, output),) = torchrun(tmp_path, *two("run", "trainer.max_epochs=410"), nodes=1, per_node=2)
    assert code == 0, output
    assert "resuming after step" in output


@pytest.mark.parametrize("strategy", ["ddp", "fsdp2"])
def test_killed_at_random_it_ends_the_same(tmp_path, strategy):
    """Ten times for each strategy, a random process at a random time."""
    chance, kills = random.Random(strategy), 0
    ((code, output),) = torchrun(tmp_path, *two("alone", strategy=strategy), nodes=1, per_node=2)
    assert code == 0, output
    while kills < 10 and not (tmp_path / "run" / "metrics.json").exists():
        (launcher,) = start_torchrun(tmp_path, *two("run", strategy=strategy), nodes=1, per_node=2)
        wait_for_progress(tmp_path / "run" / "checkpoints" / "last.ckpt", launcher)
        time.sleep(chance.uniform(0, 0.3))
        if alive := ranks([launcher]) if launcher.poll() is None else []:
            chance.choice(alive).kill()
            kills += 1
        end_all([launcher])
    assert kills == 10, "the run ended before: train longer"
    ((code, output),) = torchrun(tmp_path, *two("run", strategy=strategy), nodes=1, per_node=2)
    assert code == 0, output
    assert first_difference(tmp_path / "alone", tmp_path / "run") is None


def wait_for_progress(last: Path, launcher: "subprocess.Popen[str]") -> None:
    """Wait until this start of the run has saved a checkpoint."""
    before = last.stat().st_mtime_ns if last.exists() else 0
    wait_until(lambda: launcher.poll() is not None or (last.exists() and last.stat().st_mtime_ns > before), 240)


def test_nodes_with_other_pairs_do_not_train(tmp_path):
    for name, answer in (("zero", "Paris"), ("one", "Rome")):
        (tmp_path / name).mkdir()
        lines = [f'{{"question": "Where is {n}?", "answer": "{answer} {n}"}}\n' for n in range(12)]
        (tmp_path / name / "pairs.jsonl").write_text("".join(lines))
    launchers = start_torchrun(
        tmp_path, *two(str(tmp_path / "run"), "data=file", "data.path=pairs.jsonl"), folders=["zero", "one"]
    )
    output = end_all(launchers)[0]
    assert re.search(r"error: process 1 on \S+ has pairs of its own \(\w{12}; process 0 on \S+ has \w{12}\); ", output)
    assert output.count("error: ") == 1
    assert not (tmp_path / "run" / "config.yaml").exists()


def test_two_jobs_of_one_folder(tmp_path):
    (first,) = start_torchrun(tmp_path, *two("run"), nodes=1, per_node=2)
    wait_until(lambda: (tmp_path / "run" / "checkpoints" / "last.ckpt").exists(), 240)
    ((code, output),) = torchrun(tmp_path, *two("run"), nodes=1, per_node=2)
    assert code != 0
    assert f"error: {tmp_path}/run: in use by process" in output
    first.terminate()
    assert "terminated; the checkpoint is in" in end_all([first])[0]


def test_a_full_disk_of_the_first_process_ends_all(script, tmp_path):
    settings = [*two("run"), "trainer.devices=2"]
    begin = time.monotonic()
    done = script("train.py", *settings, limits={"RLIMIT_FSIZE": 500 * 1024}, environment=dict(os.environ))
    assert done.returncode == 1
    assert re.search(rf"error: {tmp_path}/run/checkpoints/(best|last)\.ckpt: cannot be written: ", done.stderr)
    assert time.monotonic() - begin < WITHIN


def test_a_missing_process_is_a_line_after_the_timeout(script, tmp_path):
    """As torchrun's first process, whose second one never comes."""
    ranks = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "1", "GROUP_RANK": "0"}
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    settings = [*command(CASES["packed"], "run"), "trainer.strategy=ddp", "distributed.timeout_seconds=3"]
    done = script("train.py", *settings, environment=os.environ | ranks | place)
    assert done.returncode == 1
    assert done.stderr.startswith("error: not all processes of this run came within distributed.timeout_seconds; ")
    assert len(done.stderr.splitlines()) == 1

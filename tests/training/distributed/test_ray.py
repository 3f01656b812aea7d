"""Ray Train: the same run, and one that a killed worker does not end."""

import os
import subprocess
from pathlib import Path

import psutil
import pytest

from qa_lm.api.on_ray import train_on_ray
from qa_lm.config.overrides import compose
from qa_lm.errors import UserError
from qa_lm.training.checkpointing.comparison import first_difference
from tests.conftest import ROOT
from tests.sweeps.processes import wait_until
from tests.training.distributed.equality import CASES, NORMS, assert_same_run, command

PYTHON = ROOT / ".venv" / "clusters" / "bin" / "python"
needs_ray = pytest.mark.skipif(not PYTHON.exists(), reason="needs the environment of make test-slow")


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ({"workers": 0}, "workers must be at least 1"),
        ({"workers": 2, "gpus_per_worker": 2}, "gpus_per_worker must be 0 or 1: a worker trains on one GPU"),
        ({"workers": 2, "retries": -1}, "retries must be at least 0"),
    ],
)
def test_wrong_numbers_are_refused(numbers, message, tmp_path):
    with pytest.raises(UserError, match=message):
        train_on_ray(compose(), tmp_path / "run", **numbers)
    assert not (tmp_path / "run").exists()


def arguments(case: str, *more: str) -> list[str]:
    return [each for each in command(CASES[case], "", 2) if not each.startswith("hydra.")] + list(more)


def start(folder: Path, *words: str) -> "subprocess.Popen[str]":
    (folder / "norms.py").write_text(NORMS)
    environment = os.environ | {"PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1", "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0"}
    script = [str(PYTHON), str(ROOT / "scripts" / "train_ray.py"), "run", "--workers", "2", *words]
    return subprocess.Popen(
        script, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


@needs_ray
@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["ddp", "fsdp2"])
def test_two_workers_train_as_one_process_does(script, tmp_path, strategy):
    job = start(tmp_path, *arguments("packed", f"trainer.strategy={strategy}"))
    done = script("train.py", *command(CASES["packed"], "one"))
    assert done.returncode == 0, done.stderr
    output = job.communicate(timeout=300)[0]
    assert job.returncode == 0, output
    assert output.count("epoch 3/3") == 1
    assert_same_run(tmp_path / "one", tmp_path / "run")


@needs_ray
@pytest.mark.slow
def test_a_killed_worker_is_started_again(script, tmp_path):
    more = ("trainer.max_epochs=150", "checkpoint.every_steps=3")
    job = start(tmp_path, *arguments("packed", *more))
    wait_until(lambda: (tmp_path / "run" / "checkpoints" / "previous.ckpt").exists() or job.poll() is not None, 240)
    workers = [each for each in psutil.Process(job.pid).children(recursive=True) if "RayTrainWorker" in each.name()]
    workers[0].kill()
    output = job.communicate(timeout=300)[0]
    assert job.returncode == 0, output
    assert "resuming after step" in output
    done = script("train.py", *command(CASES["packed"], "alone", 2), *more, "trainer.devices=2", "trainer.strategy=ddp")
    assert done.returncode == 0, done.stderr
    assert first_difference(tmp_path / "alone", tmp_path / "run") is None

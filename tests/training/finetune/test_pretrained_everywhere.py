"""A pretrained start in several processes and in a sweep."""

import json
import shutil
from pathlib import Path

import pytest

from qa_lm.training.train import TrainingResult
from tests.conftest import assert_trained_the_same

pytestmark = pytest.mark.slow


@pytest.fixture
def base(learnt_run: TrainingResult, tmp_path: Path) -> Path:
    return Path(shutil.copytree(learnt_run.folder / "model", tmp_path / "base"))


@pytest.mark.parametrize("method", ["full", "lora"])
def test_two_processes_train_as_one_does(base, script, tmp_path, method):
    """Two gloo processes with one row each against one with two: losses to 1e-5, weights to 1e-4."""
    common = [
        *("model=pretrained", "model.path=base", f"finetune={method}", "data.shuffle=true", "data.row_tokens=64"),
        *("data.packing=true", "trainer.accelerator=cpu", "trainer.max_epochs=3", "optimizer.lr=0.5", "seed=1"),
        *("data.train_fraction=0.7", "loss_weighting=token", "trainer.precision=32-true", "optimizer.eps=1"),
    ]
    one = script("train.py", *common, "data.batch_size=2", "hydra.run.dir=one")
    two = script(
        "train.py", *common, "data.batch_size=1", "trainer.devices=2", "trainer.strategy=ddp", "hydra.run.dir=two"
    )
    assert (one.returncode, two.returncode) == (0, 0), one.stderr + two.stderr
    assert_trained_the_same(tmp_path / "one", tmp_path / "two", epochs=3)
    boards = [json.loads((tmp_path / name / "board.json").read_text()) for name in ("one", "two")]
    assert boards[0]["rows"] == boards[1]["rows"]


def test_the_jobs_of_a_sweep_share_the_pretrained_model(base, script, tmp_path):
    before = {path.name: path.read_bytes() for path in base.iterdir() if path.is_file()}
    words = ("-m", "experiment=finetune", "model.path=base", "data=tutorial", "finetune=full,lora", "seed=1,2")
    done = script("train.py", *words, "trainer.max_epochs=1", "hydra.sweep.dir=sweep")
    assert done.returncode == 0, done.stderr
    runs = sorted(path.parent for path in (tmp_path / "sweep").glob("*/metrics.json"))
    assert len(runs) == 4
    shas = {json.loads((run / "environment.json").read_text())["base_sha256"] for run in runs}
    assert len(shas) == 1
    assert {path.name: path.read_bytes() for path in base.iterdir() if path.is_file()} == before

"""A pretrained start in several processes and in a sweep."""

import json
import shutil
from pathlib import Path

import pytest

from qa_lm.training.train import TrainingResult

pytestmark = pytest.mark.slow


@pytest.fixture
def base(learnt_run: TrainingResult, tmp_path: Path) -> Path:
    return Path(shutil.copytree(learnt_run.folder / "model", tmp_path / "base"))


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

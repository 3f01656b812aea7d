"""The checkpoints of a LoRA run hold the adapter alone: asking a run that has not finished, and loading by hand."""

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from qa_lm.config.enums import FinetuneMethod
from qa_lm.config.schema import TrainConfig
from qa_lm.errors import UserError
from qa_lm.inference.in_progress import load_answerer
from qa_lm.modeling.module import CausalLMModule
from qa_lm.training.train import TrainingResult, train
from tests.faults.resume.interrupting import interrupted
from tests.training.finetune.test_pretrained import PAIRS, finetune_config


def lora_config(base: Path, pairs: Path, epochs: int) -> TrainConfig:
    config = finetune_config(base, pairs, finetune__method=FinetuneMethod.lora)
    config.trainer["max_epochs"] = epochs
    return config


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("unfinished")


@pytest.fixture(scope="module")
def base(learnt_run: TrainingResult, folder: Path) -> Path:
    return Path(shutil.copytree(learnt_run.folder / "model", folder / "base"))


@pytest.fixture(scope="module")
def unfinished(base: Path, pairs: Path, folder: Path) -> Path:
    """Interrupted in its second epoch."""
    steps = len(PAIRS) - 1
    return interrupted(lora_config(base, pairs, 4), folder / "run", "training_step", steps + 2)


def test_asked_is_the_best_so_far(base, pairs, unfinished, tmp_path, capsys):
    """What a run of one epoch, which ended there, says."""
    ended = train(lora_config(base, pairs, 1), tmp_path / "ended").folder
    capsys.readouterr()
    questions = [pair["question"] for pair in PAIRS]
    found, wanted = (load_answerer(run).answer(questions, 20) for run in (unfinished, ended))
    assert (
        f"note: this run is not finished; using {unfinished}/checkpoints/best.ckpt, epoch 1" in capsys.readouterr().err
    )
    assert [each.answer for each in found] == [each.answer for each in wanted]
    assert [each.log_probability for each in found] == pytest.approx(
        [each.log_probability for each in wanted], abs=1e-5
    )


def test_a_checkpoint_without_its_model_is_refused(unfinished):
    with pytest.raises(UserError, match="this checkpoint holds a LoRA adapter without its model: load model/"):
        CausalLMModule.load_from_checkpoint(unfinished / "checkpoints" / "last.ckpt")


@pytest.mark.parametrize("gone", [False, True])
def test_another_pretrained_model_is_refused(base, unfinished, tmp_path, gone):
    kept = tmp_path / "kept"
    shutil.move(base, kept)
    try:
        if not gone:
            shutil.copytree(kept, base)
            weights = load_file(base / "model.safetensors")
            save_file({name: value + torch.ones(()) for name, value in weights.items()}, base / "model.safetensors")
        with pytest.raises(UserError, match="is not finished, and its pretrained model .* has changed or is gone"):
            load_answerer(unfinished)
    finally:
        shutil.rmtree(base, ignore_errors=True)
        shutil.move(kept, base)

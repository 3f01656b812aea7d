"""The recipe for a pretrained start: which settings it chooses from the pairs."""

from dataclasses import replace

import numpy as np
import pytest

from qa_lm.config.enums import FinetuneMethod
from qa_lm.config.overrides import compose
from qa_lm.config.schema import TrainConfig
from qa_lm.data.prepare import Sizes
from qa_lm.training.finetune.recipe import completed_finetuning
from qa_lm.training.recipe import completed

SIZES = Sizes(np.full(300, 16), 16, 4.0, 128, 1000)


def chosen(method: FinetuneMethod, pairs: int, *overrides: str, row: int | None = 128) -> TrainConfig:
    """What is chosen for pairs of 16 tokens."""
    config = compose("experiment=finetune", "model.path=owner/name", "data=tutorial", *overrides)
    config = replace(config, finetune=replace(config.finetune, method=method))
    return completed_finetuning(config, Sizes(np.full(pairs, 16), 16, 4.0, row, 1000))


@pytest.mark.parametrize(("method", "lr"), [(FinetuneMethod.full, 1e-4), (FinetuneMethod.lora, 5e-4)])
def test_the_learning_rate_is_that_of_the_method(method, lr):
    assert chosen(method, 300).optimizer.lr == lr
    assert chosen(method, 300, "optimizer.lr=3e-5").optimizer.lr == 3e-5


@pytest.mark.parametrize(
    ("pairs", "row", "batch_size"), [(1000, 128, 4), (128, 128, 2), (10, 128, 1), (1000, None, 32)]
)
def test_a_step_has_512_positions_and_an_epoch_of_a_small_file_8_steps(pairs, row, batch_size):
    assert chosen(FinetuneMethod.full, pairs, row=row).data.batch_size == batch_size


@pytest.mark.parametrize(
    ("overrides", "most"),
    [
        (["goal=held_out"], 10),
        (["goal=recall"], 30),
        (["goal=held_out", "trainer.max_epochs=4"], 4),
    ],
)
def test_the_maximum_number_of_epochs_is_that_of_the_goal(overrides, most):
    config = chosen(FinetuneMethod.full, 300, *overrides)
    assert completed(config, SIZES).trainer["max_epochs"] == most


def test_a_step_of_lora_is_smaller():
    assert chosen(FinetuneMethod.lora, 1000).data.batch_size == 1
    assert chosen(FinetuneMethod.lora, 1000, row=64).data.batch_size == 2


def test_given_sizes_stay():
    assert chosen(FinetuneMethod.full, 1000, "data.batch_size=3").data.batch_size == 3

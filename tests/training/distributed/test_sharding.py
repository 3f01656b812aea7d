"""Parts of FSDP2 that need one process only."""

import math

import numpy as np
import pytest
import torch

from qa_lm.config.schema import DataConfig, ModelConfig, TrainConfig
from qa_lm.data.prepare import Sizes
from qa_lm.modeling.causal_lm import build_causal_lm
from qa_lm.modeling.distributed.sharding import gathered, sharded_like, without_weights
from qa_lm.training.hardware import process_count
from qa_lm.training.recipe import completed


def test_tensors_gathered_on_the_disk_are_equal_and_leave_no_file(tmp_path):
    tensor = torch.arange(12.0).view(3, 4)
    kept = gathered({"one": tensor, "tied": tensor, "half": tensor.bfloat16(), "none": tensor[:0]}, True, tmp_path)
    assert {name: value.tolist() for name, value in kept.items()} == {
        "one": tensor.tolist(),
        "tied": tensor.tolist(),
        "half": tensor.tolist(),
        "none": [],
    }
    assert kept["one"] is kept["tied"]
    assert not list(tmp_path.iterdir())
    tensor.zero_()
    assert kept["one"].sum() == 66


def test_only_the_first_process_keeps_them():
    assert gathered({"one": torch.ones(2)}, False) == {}


@pytest.mark.parametrize("architecture", ["gpt2", "llama"])
def test_a_copy_without_weights_takes_those_of_the_model(architecture):
    model = build_causal_lm(architecture, 50, 32, 2, 2, 16, 0.0, 0)
    (copy, nothing) = without_weights(model, None)
    assert nothing is None
    assert {parameter.device.type for parameter in copy.parameters()} == {"meta"}
    copy.load_state_dict(model.state_dict(), assign=True)
    copy.tie_weights()
    ids = torch.arange(8)[None]
    assert torch.equal(copy(input_ids=ids).logits, model(input_ids=ids).logits)
    assert len(list(copy.parameters())) == len(list(model.parameters()))


def test_a_whole_tensor_stays_whole():
    tensor = torch.ones(3)
    assert sharded_like(tensor, torch.zeros(3)) is tensor


@pytest.mark.parametrize(
    ("trainer", "count"),
    [
        ({}, 1),
        ({"devices": 2}, 2),
        ({"devices": "4", "num_nodes": 2}, 8),
        ({"devices": "0,1"}, 2),
        ({"devices": [0, 2, 3]}, 3),
        ({"devices": "auto", "accelerator": "cpu"}, 1),
        ({"devices": -1, "accelerator": "cpu", "num_nodes": 3}, 3),
    ],
)
def test_how_many_processes_there_will_be(trainer, count):
    assert process_count(trainer) == count


@pytest.mark.parametrize(("given", "divided"), [(None, True), (7, False)])
def test_the_recipe_divides_a_step_among_the_processes(given, divided):
    """What the user sets is the rows of one process."""
    sizes = Sizes(np.full(5000, 16, np.int32), 16, 5.0, 64, 4096)
    config = TrainConfig(data=DataConfig(batch_size=given), model=ModelConfig(hidden_size=64, layers=2, heads=1))
    alone, together = (completed(config, sizes, processes).data.batch_size for processes in (1, 2))
    assert alone
    assert together == (math.ceil(alone / 2) if divided else alone)

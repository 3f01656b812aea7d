"""Memory, operations, transfers and strategies of a plan, by hand."""

import re
from dataclasses import replace

import pytest
import torch

from qa_lm.errors import UserError
from qa_lm.modeling.causal_lm import build_causal_lm, hidden_states
from qa_lm.modeling.lora import LoraSettings, add_lora
from qa_lm.modeling.optimizers import OptimizerSettings
from qa_lm.training.estimate import TRAINER_SECONDS
from qa_lm.training.plan.devices import KINDS, Device, kind
from qa_lm.training.plan.formulas import (
    USABLE,
    Speed,
    Strategy,
    all_reduce_bytes,
    choose,
    communication_seconds,
    gather_bytes,
    memory,
    step_seconds,
)
from qa_lm.training.plan.work import Work, activation_bytes, head_bytes, work_of

ADAMW, MUON = OptimizerSettings(1e-3), OptimizerSettings(1e-3, kind="muon")
GPT2_SMALL = 124_439_808
"""Parameters of GPT-2 small with its own context of 1,024, as published."""
WORK = Work(
    parameters=1000,
    trained=1000,
    multiplied=900,
    multiplied_trained=900,
    largest_block=200,
    outside=200,
    layers=4,
    width=10,
    weight_bytes=4,
    rows=4,
    row_tokens=16.0,
    activations=4000,
    casts=0,
    state=8000,
    head=500,
)
DEVICE = Device("a device", 1e9, 1e12, 1e11, 0, 4, 100.0, 10.0, program=0.0, achieved=1.0)


def without_memory(architecture="gpt2", vocabulary=300, width=64, layers=2, context=32):
    with torch.device("meta"):
        return build_causal_lm(architecture, vocabulary, width, layers, width // 64, context, 0.0, 0)


def work(model, optimizer=ADAMW, precision="32-true", rows=2, tokens=16):
    return work_of(model, optimizer, precision, rows, tokens, float(tokens))


def test_adamw_in_float32_takes_16_bytes_per_parameter():
    found = work(without_memory(vocabulary=50257, width=768, layers=12, context=1024))
    assert found.parameters == found.trained == GPT2_SMALL
    needed = memory(found, Strategy.one, 1, 2)
    assert needed.weights + needed.gradients + needed.state == 16 * GPT2_SMALL
    assert needed.total == 16 * GPT2_SMALL + found.activations + found.head


def test_tied_embeddings_are_multiplied_and_positions_are_not():
    found = work(without_memory(vocabulary=50257, width=768, layers=12, context=1024))
    assert found.multiplied == GPT2_SMALL - 1024 * 768
    untied = work(without_memory("llama"))
    assert untied.multiplied == untied.parameters - 300 * 64


def test_muon_keeps_one_value_of_a_matrix():
    found, adamw = work(without_memory("llama"), MUON), work(without_memory("llama"))
    matrices = sum(p.numel() for p in without_memory("llama").model.layers.parameters() if p.ndim == 2)
    assert adamw.state - found.state == 4 * matrices > 0


@pytest.mark.parametrize(("precision", "size"), [("32-true", 4), ("bf16-mixed", 4), ("bf16-true", 2), ("64-true", 8)])
def test_a_weight_has_the_bytes_of_its_precision(precision, size):
    found = work(without_memory(), precision=precision)
    assert (found.weights, found.state) == (size * found.parameters, 2 * size * found.parameters)


def test_frozen_parameters_have_no_gradient_and_cost_four_operations():
    pytest.importorskip("peft")
    full, adapted = work(without_memory("llama")), without_memory("llama")
    with torch.device("meta"):
        add_lora(adapted, LoraSettings(4, 8.0, 0.0, False, "all-linear"))
    lora = work(adapted)
    assert lora.parameters == full.parameters + lora.trained
    assert (lora.gradients, lora.state) == (4 * lora.trained, 8 * lora.trained)
    attention = 12 * 2 * 64 * 16
    assert full.flops(2) == 32 * (6 * full.multiplied + attention)
    assert lora.flops(2) == 32 * (4 * full.multiplied + 6 * lora.trained + attention)


def test_checkpointed_activations_cost_a_forward_pass_and_less_memory():
    model = without_memory("llama", layers=4)
    model.gradient_checkpointing_enable({"use_reentrant": False})
    found, usual = work(model), work(without_memory("llama", layers=4))
    assert found.flops(2) == 32 * (8 * usual.multiplied + 16 * 4 * 64 * 16)
    assert usual.activations / 4 < found.activations < usual.activations / 2


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
@pytest.mark.parametrize("architecture", ["gpt2", "llama"])
def test_activations_are_those_that_a_forward_pass_keeps(architecture, precision):
    found = activation_bytes(without_memory(architecture), precision, 4, 16)
    model = build_causal_lm(architecture, 300, 64, 2, 1, 32, 0.0, 0)
    weights, saved = {p.untyped_storage().data_ptr() for p in model.parameters()}, {}

    def note(tensor):
        saved[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage()
        return tensor

    positions = torch.arange(16).expand(4, 16)
    mixed = torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16-mixed")
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor), mixed:
        hidden_states(model, torch.zeros(4, 16, dtype=torch.long), positions)
    kept = sum(storage.nbytes() for pointer, storage in saved.items() if pointer not in weights)
    assert sum(found) == pytest.approx(kept, rel=0.02)
    blocks = sum(p.numel() for name, p in model.named_parameters() if p.ndim == 2 and re.search(r"\.\d\.", name))
    assert found[1] == (pytest.approx(2 * blocks, rel=0.02) if precision == "bf16-mixed" else 0)


def test_the_head_needs_a_chunk_of_logits_with_its_softmax():
    model = without_memory("llama", vocabulary=1000)
    blocks, gradient = 2 * 4 * 32 * 1000, 4 * 1000 * 64
    assert head_bytes(model, "32-true", 32, on_cpu=False) == 4 * 32 * 1000 + blocks + 4 * 64 * (1000 + 64) + gradient
    copy = 2 * 1000 * 64 + gradient
    assert head_bytes(model, "bf16-mixed", 32, on_cpu=False) == 2 * 32 * 1000 + blocks + 2 * 64 * (1000 + 64) + copy
    model.requires_grad_(False)
    assert head_bytes(model, "32-true", 32, on_cpu=False) == 4 * 32 * 1000 + blocks + 4 * 64 * (1000 + 64)


def test_a_ring_sends_every_part_twice_but_its_own():
    assert [all_reduce_bytes(100, devices) for devices in (1, 2, 4)] == [0, 100, 150]
    assert [gather_bytes(100, devices) for devices in (1, 2, 4)] == [0, 50, 75]


def test_ddp_sends_gradients_once_and_fsdp2_sends_weights_twice_more():
    twice = replace(WORK, micro_batches=2)
    assert communication_seconds(WORK, Strategy.ddp, DEVICE, 1) == 0
    for each, ddp, fsdp2 in ((WORK, 6000, 9000), (twice, 6000, 18000), (replace(WORK, trained=100), 600, 6300)):
        assert communication_seconds(each, Strategy.ddp, DEVICE, 4) == pytest.approx(ddp / 100)
        assert communication_seconds(each, Strategy.fsdp2, DEVICE, 4) == pytest.approx(fsdp2 / 100)
    assert communication_seconds(WORK, Strategy.ddp, DEVICE, 8) == pytest.approx(7000 / 10)  # between nodes


def test_transfers_overlap_with_the_backward_pass_or_with_all_of_a_step():
    measured = Speed(seconds=45.0)
    for strategy, device, waiting in (
        (Strategy.ddp, DEVICE, 60 - 30),
        (Strategy.fsdp2, DEVICE, 90 - 45),
        (Strategy.ddp, replace(DEVICE, overlaps=False), 60),
        (Strategy.ddp, replace(DEVICE, node_bandwidth=1000), 0),
    ):
        seconds, waited = step_seconds(WORK, strategy, device, 4, 4, measured)
        assert (seconds, waited) == (pytest.approx(45 + waiting), pytest.approx(waiting))
    assert step_seconds(WORK, Strategy.one, DEVICE, 1, 2, measured) == (22.5, 0)


def test_a_step_takes_its_operations_and_its_update():
    device = replace(DEVICE, memory_bandwidth=1000.0)
    operations = 64 * (6 * 900 + 12 * 4 * 10 * 16)
    assert WORK.flops(4) == operations
    seconds, _ = step_seconds(WORK, Strategy.one, device, 1, 4, Speed(flops=1e6))
    assert seconds == pytest.approx(operations / 1e6 + TRAINER_SECONDS + 7 * 4000 / 1000)


def test_fsdp2_divides_weights_gradients_and_state_only():
    ddp, fsdp2 = (memory(WORK, strategy, 4, 4) for strategy in (Strategy.ddp, Strategy.fsdp2))
    assert (ddp.weights, ddp.gradients, ddp.state, ddp.other) == (4000, 8000, 8000, 0)  # buckets double the gradients
    assert (fsdp2.weights, fsdp2.gradients, fsdp2.state) == (1000, 1000, 2000)
    assert (fsdp2.activations, fsdp2.head) == (ddp.activations, ddp.head) == (4000, 500)
    assert fsdp2.other == 4 * (200 + 2 * 200) + 4 * (200 + 200)


def test_the_strategy_changes_exactly_where_the_memory_does():
    whole, divided = (memory(WORK, strategy, 4, 4).total for strategy in (Strategy.ddp, Strategy.fsdp2))
    for bytes_, strategy in (
        (whole, Strategy.ddp),
        (whole - 1, Strategy.fsdp2),
        (divided, Strategy.fsdp2),
        (divided - 1, Strategy.none),
    ):
        device = replace(DEVICE, memory=(bytes_ + 0.01) / USABLE)
        assert choose(WORK, device, 4, 4)[0] is strategy
    one = memory(WORK, Strategy.one, 1, 4).total
    assert choose(WORK, replace(DEVICE, memory=(one + 0.01) / USABLE), 1, 4)[0] is Strategy.one
    assert choose(WORK, replace(DEVICE, memory=(one - 1) / USABLE), 1, 4)[0] is Strategy.none


def test_processes_of_a_cpu_share_its_memory():
    device = replace(DEVICE, shared_memory=True)
    assert [device.memory_for(count) for count in (1, 2, 4, 64)] == [1e9, 5e8, 2.5e8, 2.5e8]
    assert DEVICE.memory_for(64) == 1e9


def test_an_unknown_kind_of_device_names_the_known_ones():
    assert kind("H100") is kind("h100") is KINDS["h100"]
    assert kind("RTX 4090") is KINDS["rtx4090"]
    with pytest.raises(UserError, match="did you mean h100.*here, a100, h100, h200, l4, rtx4090"):
        kind("h10")

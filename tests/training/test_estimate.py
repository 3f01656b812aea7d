"""What is measured before training: precision, seconds, memory, whether to compile."""

import csv
import time
from dataclasses import replace
from itertools import chain, repeat
from types import SimpleNamespace

import pytest
import torch

from qa_lm.config.schema import TrainConfig
from qa_lm.data.prepare import prepare
from qa_lm.training import compilation, estimate, hardware, recipe
from qa_lm.training.announcement import announce_estimate
from qa_lm.training.build import build_task
from qa_lm.training.compilation import compile_network, is_compiled, undo_compilation
from qa_lm.training.estimate import Estimate, estimate_training
from qa_lm.training.hardware import choose_precision
from qa_lm.training.train import train
from qa_lm.training.trainer import build_trainer
from tests.training.test_recall import open_config


def deep_config(layers, **changes):
    config = open_config(**changes)
    return replace(config, model=replace(config.model, layers=layers, hidden_size=32, heads=2, context=128))


def task_of(config, folder):
    prepared = prepare(config.data, config.tokenizer, config.model.context)
    config = recipe.completed(config, prepared.sizes())
    return build_task(config, prepared, build_trainer(config, folder, prepared).trainer)


@pytest.mark.parametrize("wish", [None, True])
def test_measuring_changes_neither_weights_nor_random_numbers(tmp_path, monkeypatch, wish):
    """Also if compiling fails, which gives a message and is not an error."""

    def broken(*arguments, **named):
        def call(*arguments, **named):
            raise RuntimeError("no C++ compiler\nand a long story")

        return call

    monkeypatch.setattr(torch, "compile", broken)
    task = task_of(open_config(), tmp_path)
    before = {name: weight.clone() for name, weight in task.module.state_dict().items()}
    state = torch.get_rng_state()
    found = estimate_training(task.module, task.data, "32-true", torch.device("cpu"), 3, wish)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(weight, before[name]) for name, weight in task.module.state_dict().items())
    assert all(parameter.grad is None for parameter in task.module.parameters())
    assert found.seconds == 3 * found.epoch_seconds > 0
    assert found.compilation.startswith("off (")
    assert ("no C++ compiler" in found.compilation) == bool(wish)
    assert "long story" not in found.compilation


@pytest.mark.parametrize(
    ("in_all", "mean", "measured"),
    [
        (10, 0.15, 7),  # five steps would be 0.8 s, a second is asked for; the slow step counts too
        (250, 0.127, 13),  # a twentieth of them
        (10**6, 0.1074, 47),  # 5 s
    ],
)
def test_steps_are_measured_long_enough_and_with_all_that_training_does(tmp_path, monkeypatch, in_all, mean, measured):
    """The test sets the clock."""
    clipped, now = [], iter(range(10**6))
    task = task_of(open_config(), tmp_path)
    took = chain([9.0, 0.1, 0.1, 0.4, 0.1, 0.1, 0.1, 0.15], repeat(0.1))
    clock = SimpleNamespace(perf_counter=lambda: sum(next(took) for _ in range(next(now) % 2)))
    monkeypatch.setattr(estimate, "time", clock)
    monkeypatch.setattr(estimate, "clip", lambda *arguments: clipped.append(arguments))
    batches = estimate.first_batches(task.data, torch.device("cpu"), 2)
    seconds = estimate.step_seconds(task.module, batches, "32-true", in_all)
    assert len(clipped) == 1 + measured
    assert seconds == pytest.approx(mean + estimate.TRAINER_SECONDS, abs=1e-3)


def test_an_epoch_is_its_steps_its_validation_and_a_checkpoint(tmp_path, monkeypatch):
    task = task_of(open_config(), tmp_path)
    monkeypatch.setattr(estimate, "step_seconds", lambda *arguments: 10.0)
    monkeypatch.setattr(estimate, "validation_seconds", lambda *arguments: 0.25)
    monkeypatch.setattr(estimate, "loading_seconds", lambda *arguments: 0.5)
    monkeypatch.setattr(estimate, "SAVED_BYTES_PER_SECOND", 1.0)
    found = estimate_training(task.module, task.data, "32-true", torch.device("cpu"), 2, False)
    steps = len(task.data.train_dataloader())
    scored = sum(map(len, task.data.val_dataloader()))
    parameters = sum(weight.numel() for weight in task.module.model.parameters())
    training = (10 + 0.5) * steps + 0.25 * scored + estimate.EPOCH_SECONDS
    copy = 12 * parameters / estimate.COPIED_BYTES_PER_SECOND
    assert found.epoch_seconds == pytest.approx(training + copy + 12 * parameters / 2)
    assert found.seconds == 2 * found.epoch_seconds
    for every, saves in ((2 * training, 0.5), (0, steps)):
        found = estimate_training(task.module, task.data, "32-true", torch.device("cpu"), 2, False, every)
        assert found.epoch_seconds == pytest.approx(training + copy + 12 * parameters * (saves + 1 / 2))


def test_making_the_batches_counts_unless_other_processes_make_them(tmp_path, monkeypatch):
    task = task_of(open_config(), tmp_path)
    collate, cpu = task.data.train_collate, torch.device("cpu")

    def slow(rows):
        time.sleep(0.02)
        return collate(rows)

    monkeypatch.setattr(task.data, "train_collate", slow)
    assert estimate.loading_seconds(task.data, cpu) >= 0.02
    task.data.workers = 2
    assert estimate.loading_seconds(task.data, cpu) == 0


def test_memory_of_the_end_is_estimated_too_if_it_is_main_memory(monkeypatch):
    """So is the copy of the best state, without the weights, of which the measurement held a copy too."""
    end = estimate.END_BYTES
    for device, peak, parameters, room, expected in (
        ("cpu", 700, 10, "cpu", 700 + end),
        ("cpu", 700, end, "cpu", 700 + 8 * end),
        ("cpu", 700, end, None, 700 + end),
        ("cpu", 0, end, "cpu", 0),
        ("cuda", 700, 10, "cuda", 780),
        ("cuda", 700, 10, "cpu", 700),
    ):
        monkeypatch.setattr(estimate, "peak_memory", lambda device, peak=peak: peak)
        monkeypatch.setattr(estimate, "room_for", lambda size, device, room=room: room and torch.device(room))
        assert estimate._memory(torch.device(device), parameters) == expected


def test_a_long_run_is_compiled_and_a_short_one_not(tmp_path, monkeypatch):
    tried = []

    def compiled(module, step_seconds, eager):
        tried.append(module)
        return eager, "yes"

    monkeypatch.setattr(estimate, "try_compilation", compiled)
    task = task_of(open_config(), tmp_path)
    for epochs, times in ((1, 0), (10**7, 1)):
        estimate_training(task.module, task.data, "32-true", torch.device("cpu"), epochs, None)
        assert len(tried) == times
    estimate_training(task.module, task.data, "32-true", torch.device("cpu"), 10**7, False)
    estimate_training(task.module, task.data, "32-true", torch.device("cpu"), 10**7, None, None, 60.0)  # a budget
    assert len(tried) == 1


@pytest.mark.parametrize(("layers", "compiled_parts"), [(12, 1), (13, 13)])
def test_a_deep_network_is_compiled_block_by_block_and_only_for_training(layers, compiled_parts, tmp_path, monkeypatch):
    parts, calls = [], []

    def fake_compile(function, dynamic):
        parts.append(function)

        def compiled(*arguments, **options):
            calls.append(torch.is_grad_enabled())
            return function(*arguments, **options)

        return compiled

    monkeypatch.setattr(torch, "compile", fake_compile)
    task = task_of(deep_config(layers), tmp_path)
    batch = next(iter(task.data.train_dataloader()))
    expected = task.module.eval()(batch).loss
    compile_network(task.module)
    assert is_compiled(task.module)
    assert len(parts) == compiled_parts
    torch.testing.assert_close(task.module(batch).loss, expected, rtol=0, atol=0)
    assert calls == [True] * compiled_parts
    with torch.no_grad():
        task.module(batch)
    assert len(calls) == compiled_parts
    undo_compilation(task.module)
    task.module(batch)
    assert len(calls) == compiled_parts
    assert not is_compiled(task.module)


def test_compiling_must_save_more_than_it_takes(tmp_path):
    module = task_of(open_config(), tmp_path).module
    seconds = compilation.SECONDS / compilation.GAIN
    assert compilation.pays_to_compile(module, seconds + 1)
    assert not compilation.pays_to_compile(module, seconds - 1)
    next(module.parameters()).requires_grad_(False)  # as with LoRA, where it saves more
    assert compilation.pays_to_compile(module, seconds - 1)


@pytest.mark.slow
@pytest.mark.parametrize("layers", [1, 13])
def test_a_compiled_run_learns_the_same(layers, tmp_path):
    losses = []
    for compiled in (False, True):
        config = deep_config(layers, compile=compiled, trainer__max_epochs=6, trainer__precision="32-true")
        result = train(config, tmp_path / str(compiled))
        rows = list(csv.DictReader((result.folder / "metrics.csv").open()))
        losses.append([float(row["train_loss"]) for row in rows])
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)
    assert losses[0][-1] < 0.85 * losses[0][0]


def test_precision_is_measured_only_where_it_is_left_open(monkeypatch):
    def fail(device):
        raise AssertionError("measured")

    monkeypatch.setattr(hardware, "bfloat16_speedup", fail)
    assert choose_precision({"precision": "64-true"})[0] == "64-true"
    assert choose_precision({"devices": 2})[0] == "32-true"
    for times, expected in ((3.0, "bf16-mixed"), (1.1, "32-true"), (0.02, "32-true")):
        monkeypatch.setattr(hardware, "bfloat16_speedup", lambda device, times=times: times)
        chosen, words = choose_precision({"accelerator": "cpu", "precision": None})
        assert chosen == expected
        assert f"{times:.2g} times" in words


@pytest.mark.parametrize(
    ("epochs", "epoch_seconds", "printed"),
    [
        (12, 116.2, "estimated: at most 1,394 s of training (12 epochs of 116 s), 0.86 GB of memory"),
        (0.5, 1394.4, "estimated: at most 697 s of training (0.5 epochs of 1,394 s), 0.86 GB of memory"),
        (1200, 0.0416, "estimated: at most 50 s of training (1,200 epochs of 0.042 s), 0.86 GB of memory"),
    ],
)
def test_the_estimate_is_printed_without_exponents(capsys, epochs, epoch_seconds, printed):
    announce_estimate(TrainConfig(), Estimate(epochs, epoch_seconds, 860_000_000, "off"))
    assert capsys.readouterr().out == f"torch.compile: off\n{printed}\n"

"""A few steps before training: whether to compile, how long training will take, how much memory it needs.

The steps are real ones, on the first batches, with an optimizer of their own; afterwards weights and random numbers are
as before.
"""

import copy
import statistics
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass

import torch
from lightning.fabric.utilities import move_data_to_device

from qa_lm.batch import Batch
from qa_lm.data.batches.datamodule import PairsDataModule
from qa_lm.errors import first_line
from qa_lm.modeling.causal_lm import parameter_count
from qa_lm.modeling.clipping import clip
from qa_lm.modeling.module import CausalLMModule
from qa_lm.training.checkpointing.best_state import room_for
from qa_lm.training.memory import peak_memory

STEPS = 5
"""Steps measured at least, after one that is not."""
MEASURED_SHARE = 0.05
"""Share of the steps that is measured before them, within the next two: a machine that others share is not equally fast
from one second to the next."""
FEWEST_SECONDS, MOST_SECONDS = 1.0, 5.0
"""Seconds of steps measured at least, and at most where steps are short."""
TRAINER_SECONDS = 0.002
"""What Lightning and the callbacks add to a step; measured: docs/log.md, "roof, peers and time to recall"."""
EPOCH_SECONDS = 0.025
"""What the end of an epoch adds to its steps and its validation; measured: docs/log.md, "small files"."""
SAVED_BYTES = 12
"""Of each parameter in a checkpoint: its weight and two values of the optimizer."""
SAVED_BYTES_A_SECOND = 1e9
"""How fast a checkpoint is written, summed and synced."""
COPIED_BYTES_A_SECOND = 5e9
"""How fast the best state is copied, which ends each epoch that improves."""
AFTERWARDS = 100_000_000
"""Bytes of main memory that the end of a run adds, the ledger and the answers; measured in the same table."""
COMPILE_SECONDS = 40.0
"""A compilation from nothing; measured: docs/log.md, "Compiled or not"."""
COMPILE_GAIN = 0.2
"""Share of a step that compiling saves; measured in the same table."""


@dataclass(frozen=True)
class Expectation:
    """What training will take."""

    epochs: float
    epoch_seconds: float
    memory: int
    """Bytes."""
    compilation: str
    """Whether the network is compiled, for people."""

    @property
    def seconds(self) -> float:
        """From here to the end of training."""
        return self.epochs * self.epoch_seconds


def expect(
    module: CausalLMModule,
    data: PairsDataModule,
    precision: str,
    device: torch.device,
    epochs: float,
    wish: bool | None,
    every_seconds: float | None = None,
) -> Expectation:
    """Measure, and compile the network if that is wished or pays.

    Args:
        module: what will be trained; compiled or not afterwards.
        data: its batches.
        precision: as `lightning.Trainer` names it.
        device: where it will be trained.
        epochs: how many there will be.
        wish: whether to compile; None to compile if it earns its time back.
        every_seconds: seconds of training between two checkpoints; None for one at the end alone.
    """
    module.to(device)
    batches = first_batches(data, device, STEPS + 1)
    steps = len(data.train_dataloader())
    in_all = steps * epochs
    with _as_it_was(module, device):
        seconds = _step_seconds(module, batches, precision, in_all)
        if wish is None:
            wish = COMPILE_GAIN * seconds * in_all > COMPILE_SECONDS
        compilation = "no; the run is too short to earn it back"
        if wish:
            seconds, compilation = _compiled(module, batches, precision, in_all, seconds)
        validation = sum(len(loader) for loader in data.val_dataloader()) * _validation_seconds(
            module, batches[0], precision
        )
        memory = _memory(device, parameter_count(module.model))
    size, training = SAVED_BYTES * parameter_count(module.model), steps * seconds + validation + EPOCH_SECONDS
    saves = 1 / epochs + (0 if every_seconds is None else min(steps, training / max(every_seconds, 1e-9)))
    saving = size / COPIED_BYTES_A_SECOND + saves * size / SAVED_BYTES_A_SECOND
    return Expectation(epochs, training + saving, memory, compilation)


def _memory(device: torch.device, parameters: int) -> int:
    """Bytes of the whole run; 0 where the system does not say."""
    peak = peak_memory(device)
    # The best state is kept on the device if it finds room. Measuring held a copy of the weights too, which is free by
    # then; at the end of a run the best state is free as well.
    kept = 0 if room_for(SAVED_BYTES * parameters, device) != device else (SAVED_BYTES - 4) * parameters
    return peak and peak + max(kept, AFTERWARDS if device.type == "cpu" else 0)


def first_batches(data: PairsDataModule, device: torch.device, count: int) -> list[Batch]:
    """The first batches of an epoch, on the device."""
    batches = []
    for batch, _ in zip(data.train_dataloader(), range(count), strict=False):
        batches.append(move_data_to_device(batch, device))
    return batches


@contextmanager
def _as_it_was(module: CausalLMModule, device: torch.device) -> Iterator[None]:
    weights = copy.deepcopy(module.state_dict())
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        try:
            yield
        finally:
            module.load_state_dict(weights)
            module.zero_grad(set_to_none=True)


def _step_seconds(module: CausalLMModule, batches: list[Batch], precision: str, in_all: float) -> float:
    """Mean time of a step as training makes it, of so many in all."""
    optimizer = module.make_optimizer(module.model)
    times: list[float] = []
    module.train()
    while not _suffices(times[1:], in_all):
        batch = batches[len(times) % len(batches)]
        start = time.perf_counter()
        with autocast(batch, precision):
            sums = module(batch)
        (sums.loss / sums.weight).backward()
        clip(module.parameters(), None, None)
        optimizer.step()
        optimizer.zero_grad()
        sums.weight.item()
        if batch.inputs.device.type == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return statistics.mean(times[1:]) + TRAINER_SECONDS


def _suffices(times: list[float], in_all: float) -> bool:
    """Whether so many steps speak for all."""
    seconds = sum(times)
    if len(times) < STEPS or seconds < FEWEST_SECONDS:
        return False
    return seconds >= MOST_SECONDS or len(times) >= MEASURED_SHARE * in_all


@torch.no_grad()
def _validation_seconds(module: CausalLMModule, batch: Batch, precision: str) -> float:
    times = []
    for _ in range(3):
        start = time.perf_counter()
        with autocast(batch, precision):
            module(batch).weight.item()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def _compiled(
    module: CausalLMModule, batches: list[Batch], precision: str, in_all: float, eager: float
) -> tuple[float, str]:
    """Seconds of a step with the network compiled, or as before where that fails or does not help."""
    before = module.hidden_states
    start = time.perf_counter()
    module.compile_network()
    try:
        seconds = _step_seconds(module, batches, precision, in_all)
    except Exception as error:  # whatever a missing or broken compiler raises
        module.hidden_states = before
        return eager, f"no; torch.compile fails here: {first_line(error)}"
    took = time.perf_counter() - start
    if seconds > eager:
        module.hidden_states = before
        return eager, f"no; compiled steps take {seconds / eager:.2f} of the time"
    return seconds, f"yes, in {took:.0f} s; steps take {seconds / eager:.2f} of the time"


def autocast(batch: Batch, precision: str) -> AbstractContextManager[object]:
    """The context in which Lightning runs a step in this precision."""
    if precision != "bf16-mixed":
        return nullcontext()
    return torch.autocast(batch.inputs.device.type, torch.bfloat16)

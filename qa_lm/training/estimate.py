"""Estimates before training: how long it will take, how much memory it needs, whether compiling pays.

They come from a few real steps on the first batches with a separate optimizer. Weights and random states are restored
afterwards.
"""

import copy
import math
import statistics
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from itertools import islice, pairwise

import torch
from lightning.fabric.utilities import move_data_to_device

from qa_lm.batch import Batch
from qa_lm.data.batches.datamodule import PairsDataModule
from qa_lm.modeling.causal_lm import parameter_count
from qa_lm.modeling.gradients import clip
from qa_lm.modeling.lora import trained_state
from qa_lm.modeling.module import CausalLMModule
from qa_lm.training.checkpointing.best_state import room_for
from qa_lm.training.compilation import pays_to_compile, try_compilation
from qa_lm.training.hardware import peak_memory, return_freed_memory

STEPS = 5
"""Minimum number of measured steps, after one warm-up step."""
MEASURED_SHARE = 0.05
"""Share of all steps to measure, within the limits of the next two constants. The speed of a shared machine varies from
one second to the next."""
MIN_SECONDS, MAX_SECONDS = 1.0, 5.0
"""Minimum and maximum total seconds of the measured steps."""
TRAINER_SECONDS = 0.002
"""Seconds that Lightning and the callbacks add to a step. Measured: docs/log.md, "roof, peers and time to recall"."""
EPOCH_SECONDS = 0.025
"""Seconds that the end of an epoch adds to its steps and its validation. Measured: docs/log.md, "small files"."""
SAVED_BYTES = 12
"""Bytes per parameter in a checkpoint: its weight and two values of the optimizer."""
SAVED_BYTES_PER_SECOND = 1e9
"""Bytes of a checkpoint that are written, hashed and synced per second."""
COPIED_BYTES_PER_SECOND = 5e9
"""Bytes of the best state that are copied per second, at the end of each epoch that improves."""
END_BYTES = 100_000_000
"""Bytes of main memory that the end of a run adds, for the ledger and the answers. Measured in the same table."""


@dataclass(frozen=True)
class Estimate:
    """Estimated time and memory of training."""

    epochs: float
    epoch_seconds: float
    memory: int
    """Peak memory of the run, bytes."""
    compilation: str
    """Whether the network is compiled and why, as text for the user."""

    @property
    def seconds(self) -> float:
        """Seconds of training."""
        return self.epochs * self.epoch_seconds


def estimate_training(
    module: CausalLMModule,
    data: PairsDataModule,
    precision: str,
    device: torch.device,
    epochs: float,
    compile_network: bool | None,
    every_seconds: float | None = None,
    at_most: float = math.inf,
) -> Estimate:
    """Estimate time and memory, and compile the network if that is wanted or pays.

    Args:
        module: the module to train. Its network may be compiled afterwards.
        data: the batches.
        precision: name of the precision in `lightning.Trainer`.
        device: the device of training.
        epochs: number of epochs.
        compile_network: whether to compile; None compiles if the run is long enough to pay for it.
        every_seconds: seconds of training between two checkpoints; None for one checkpoint at the end.
        at_most: seconds that training may take, which compiling must be worth.
    """
    module.to(device)
    batches = first_batches(data, device, STEPS + 1)
    steps = len(data.train_dataloader())
    loading = loading_seconds(data, device)
    total_steps = steps * epochs
    with _restored_state(module, device):
        seconds = step_seconds(module, batches, precision, total_steps)
        compilation = "off" if compile_network is False else "off (run too short to pay for compiling)"
        if compile_network is None:
            compile_network = pays_to_compile(module, min(at_most, seconds * total_steps))
        if compile_network:
            measure = partial(step_seconds, module, batches, precision, total_steps)
            seconds, compilation = try_compilation(module, measure, eager=seconds)
        validation = sum(len(loader) for loader in data.val_dataloader()) * validation_seconds(
            module, batches[0], precision
        )
        trained = parameter_count(module.model, trained=True)
        memory = _memory(device, trained)
    return_freed_memory()
    size, training = SAVED_BYTES * trained, steps * (seconds + loading) + validation + EPOCH_SECONDS
    saves = 1 / epochs + (0 if every_seconds is None else min(steps, training / max(every_seconds, 1e-9)))
    saving = size / COPIED_BYTES_PER_SECOND + saves * size / SAVED_BYTES_PER_SECOND
    return Estimate(epochs, training + saving, memory, compilation)


def _memory(device: torch.device, parameters: int) -> int:
    """Estimate the peak memory of the run, bytes; 0 if the system does not report memory."""
    peak = peak_memory(device)
    # The best state is kept on the device if there is room. The measurement held a copy of the weights too, which is
    # free by then. At the end of a run the best state is free as well.
    best_state = 0 if room_for(SAVED_BYTES * parameters, device) != device else (SAVED_BYTES - 4) * parameters
    return peak and peak + max(best_state, END_BYTES if device.type == "cpu" else 0)


def first_batches(data: PairsDataModule, device: torch.device, count: int) -> list[Batch]:
    """Return the first batches of an epoch, on the device."""
    batches = []
    for batch, _ in zip(data.train_dataloader(), range(count), strict=False):
        batches.append(move_data_to_device(batch, device))
    return batches


def loading_seconds(data: PairsDataModule, device: torch.device) -> float:
    """Measure the mean seconds to make a batch, with its questions rewritten, and to move it to the device."""
    if data.workers:  # other processes make the batches during the steps
        return 0.0
    times = [time.perf_counter()]
    for batch in islice(data.train_dataloader(), STEPS + 1):
        move_data_to_device(batch, device)
        times.append(time.perf_counter())
    seconds = [end - begin for begin, end in pairwise(times)]
    return statistics.mean(seconds[1:] or seconds)  # the first one starts the epoch


@contextmanager
def _restored_state(module: CausalLMModule, device: torch.device) -> Iterator[None]:
    weights = copy.deepcopy(trained_state(module))
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        try:
            yield
        finally:
            module.load_state_dict(weights, strict=module.strict_loading)
            module.zero_grad(set_to_none=True)


def step_seconds(module: CausalLMModule, batches: list[Batch], precision: str, total_steps: float) -> float:
    """Measure the mean seconds of a training step, at most of `total_steps`."""
    optimizer = module.make_optimizer(module.model)
    times: list[float] = []
    module.train()
    while not _enough(times[1:], total_steps):
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


def _enough(times: list[float], total_steps: float) -> bool:
    """Whether enough steps were measured."""
    seconds = sum(times)
    if len(times) < STEPS or seconds < MIN_SECONDS:
        return False
    return seconds >= MAX_SECONDS or len(times) >= MEASURED_SHARE * total_steps


@torch.no_grad()
def validation_seconds(module: CausalLMModule, batch: Batch, precision: str) -> float:
    """Measure the median seconds of a forward pass of a batch."""
    times = []
    for _ in range(3):
        start = time.perf_counter()
        with autocast(batch, precision):
            module(batch).weight.item()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def autocast(batch: Batch, precision: str) -> AbstractContextManager[object]:
    """Return the context in which Lightning runs a step in this precision."""
    if precision != "bf16-mixed":
        return nullcontext()
    return torch.autocast(batch.inputs.device.type, torch.bfloat16)

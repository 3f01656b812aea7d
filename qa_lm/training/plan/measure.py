"""This machine's device and its measured steps."""

import os
from dataclasses import dataclass
from functools import partial

import psutil
import torch

from qa_lm.config.schema import TrainConfig
from qa_lm.training.attention import set_attention_for_training
from qa_lm.training.build import Task
from qa_lm.training.compilation import pays_to_compile, try_compilation
from qa_lm.training.estimate import STEPS, first_batches, loading_seconds, step_seconds
from qa_lm.training.hardware import ROWS, WIDTH, device_of, product_seconds
from qa_lm.training.plan.devices import ETHERNET, GLOO, KINDS, Device
from qa_lm.training.plan.formulas import Speed
from qa_lm.training.plan.rows import Epoch


@dataclass(frozen=True)
class Measured:
    """Measured seconds of a batch, with its loading and its update."""

    alone: float
    """By a run on one device, which compiles the network if that pays."""
    together: float
    """By one of several processes, which compile only with `compile=true`."""
    compilation: str
    """Whether the network was compiled for `alone`."""

    @property
    def speeds(self) -> tuple[Speed, Speed]:
        """The speed of a device alone, and as one of several."""
        return Speed(self.alone), Speed(self.together)


def this_machine(device: torch.device, program: float) -> Device:
    """Describe the device of this machine; its steps are measured.

    Args:
        device: the device of training.
        program: bytes that this process uses apart from the model, on a CPU.
    """
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
        memory = float(torch.cuda.get_device_properties(device).total_memory)
        known = [each for key, each in KINDS.items() if key in name.lower().replace(" ", "")]
        like = known[0] if known else KINDS["l4"]
        links = (max(1, torch.cuda.device_count()), like.node_bandwidth, like.network_bandwidth)
        return Device(f"this machine ({name})", memory, 0, 0, like.memory_bandwidth, *links)
    threads, cores = torch.get_num_threads(), os.cpu_count() or 1
    name = f"this machine (a process with {threads} of {cores} {'cores' if cores > 1 else 'core'})"
    per_node = max(1, cores // threads)
    memory = float(psutil.virtual_memory().total)
    return Device(name, memory, 0, 0, 0, per_node, GLOO, ETHERNET, program, 1.0, overlaps=False, shared_memory=True)


def measure(task: Task, config: TrainConfig, epoch: Epoch) -> Measured:
    """Measure training steps on this machine. The weights of the task are changed by them.

    Args:
        task: module and data.
        config: settings without open (null) values.
        epoch: the size of an epoch and the number of epochs.
    """
    module, device, total = task.module.to(device_of(config.trainer)), device_of(config.trainer), epoch.epochs
    total *= epoch.batches(1)
    set_attention_for_training(module.model, config, device.type == "cpu")
    batches = first_batches(task.data, device, STEPS + 1)
    loading = loading_seconds(task.data, device)
    seconds = partial(step_seconds, module, batches, str(config.trainer["precision"]), total)
    eager, compilation = seconds(), "off"
    alone = eager
    wanted = config.compile if config.compile is not None else pays_to_compile(module, eager * total)
    if wanted and config.data.packing:
        alone, compilation = try_compilation(module, seconds, eager=eager)
    together = alone if config.compile else eager
    return Measured(alone + loading, together + loading, compilation)


def product_flops(device: torch.device, precision: str) -> float:
    """Operations per second of a matrix product on this machine, in the dtype of a precision."""
    dtype = torch.bfloat16 if precision.startswith("bf16") else torch.float32
    return 2 * ROWS * WIDTH**2 / product_seconds(device, dtype)

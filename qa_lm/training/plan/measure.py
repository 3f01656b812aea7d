"""Measured steps of this machine's device, as before a run."""

from dataclasses import dataclass
from functools import partial

import torch

from qa_lm.config.schema import TrainConfig
from qa_lm.training.build import Task
from qa_lm.training.compilation import pays_to_compile, try_compilation
from qa_lm.training.estimate import STEPS, first_batches, loading_seconds, step_seconds
from qa_lm.training.hardware import ROWS, WIDTH, device_of, product_seconds
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


def measure(task: Task, config: TrainConfig, epoch: Epoch) -> Measured:
    """Measure training steps on this machine. The weights of the task are changed by them.

    Args:
        task: module and data.
        config: settings without open (null) values.
        epoch: the size of an epoch and the number of epochs.
    """
    module, device, total = task.module.to(device_of(config.trainer)), device_of(config.trainer), epoch.epochs
    total *= epoch.batches(1)
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

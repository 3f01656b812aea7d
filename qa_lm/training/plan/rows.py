"""The rows of a plan: 1, 2, 4, ... devices, each with its strategy, memory, speed and time."""

import math
from dataclasses import dataclass

from qa_lm.training.build import Limit, limited
from qa_lm.training.plan.devices import Device
from qa_lm.training.plan.formulas import Memory, Speed, Strategy, choose, step_seconds
from qa_lm.training.plan.work import Work


@dataclass(frozen=True)
class Epoch:
    """The size of an epoch, and how many there are."""

    rows: int
    batch_size: int
    """Maximum number of rows of a device's batch, which is the same for any number of devices."""
    tokens: int
    """Tokens of all rows, without padding."""
    epochs: float
    micro_batches: int = 1
    """Batches of an optimizer step."""
    limit: Limit = 1.0
    """`trainer.limit_train_batches`."""

    def rows_per_device(self, devices: int) -> int:
        """Rows of a device's batch: fewer if the epoch has less than one batch for each device."""
        return max(1, min(self.batch_size, math.ceil(self.rows / devices)))

    def batches(self, devices: int) -> int:
        """Batches of each device in an epoch."""
        return limited(self.limit, self._all(devices))

    def steps(self, devices: int) -> int:
        """Optimizer steps of an epoch."""
        return max(1, math.ceil(self.batches(devices) / self.micro_batches))

    def trained_tokens(self, devices: int) -> float:
        """Tokens of the batches of an epoch."""
        return self.tokens * self.batches(devices) / self._all(devices)

    def _all(self, devices: int) -> int:
        return math.ceil(self.rows / (self.rows_per_device(devices) * devices))


@dataclass(frozen=True)
class PlanRow:
    """What a run would need on a number of devices."""

    devices: int
    strategy: Strategy
    memory: Memory
    """Of each device. Where nothing fits, that of the strategy that needs least."""
    batch: int
    """Rows of an optimizer step, on all devices together."""
    steps: int
    """Optimizer steps of an epoch."""
    step_seconds: float
    waiting_seconds: float
    """Seconds of a step in which products wait for transfers."""
    tokens_per_second: float
    hours: float
    """Hours of the training steps of all epochs."""


def device_counts(most: int) -> list[int]:
    """Return 1, 2, 4, ... up to a number, which is the last one."""
    return sorted({1 << power for power in range(most.bit_length()) if 1 << power <= most} | {most})


def plan_rows(work: Work, epoch: Epoch, device: Device, speeds: tuple[Speed, Speed], most: int) -> list[PlanRow]:
    """Plan a run on 1 to `most` devices.

    Args:
        work: work of a step of one device.
        epoch: the size of an epoch.
        device: kind of the devices.
        speeds: how fast a device computes alone, and as one of several.
        most: largest number of devices.
    """
    return [_row(work, epoch, device, speeds[count > 1], count) for count in device_counts(most)]


def _row(work: Work, epoch: Epoch, device: Device, speed: Speed, devices: int) -> PlanRow:
    rows, steps = epoch.rows_per_device(devices), epoch.steps(devices)
    strategy, needed = choose(work, device, devices, rows)
    seconds, waiting = step_seconds(work, strategy, device, devices, rows, speed)
    return PlanRow(
        devices=devices,
        strategy=strategy,
        memory=needed,
        batch=rows * devices * epoch.micro_batches,
        steps=steps,
        step_seconds=seconds,
        waiting_seconds=waiting,
        tokens_per_second=epoch.trained_tokens(devices) / (steps * seconds),
        hours=epoch.epochs * steps * seconds / 3600,
    )

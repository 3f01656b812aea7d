"""Memory, communication and time of a step on several devices. docs/plan.md explains each formula."""

from dataclasses import dataclass
from enum import Enum

from qa_lm.training.estimate import TRAINER_SECONDS
from qa_lm.training.plan.devices import Device
from qa_lm.training.plan.work import Work

USABLE = 0.9
"""Share of a device's memory that can be filled: the rest is lost to fragments."""
BACKWARD = 2 / 3
"""Share of the operations of a step that belong to the backward pass."""
TRAFFIC = 7
"""Times that an update reads or writes the bytes of a parameter: weight, gradient and two values of AdamW are read, all
but the gradient are written."""


class Strategy(Enum):
    """How devices share the work."""

    one = "one device"
    ddp = "ddp"
    """Each device holds a whole replica; gradients are averaged."""
    fsdp2 = "fsdp2"
    """Weights, gradients and optimizer state are divided between the devices."""
    none = "does not fit"


@dataclass(frozen=True)
class Memory:
    """Bytes of memory of one device."""

    weights: float
    """Weights, and copies of them in bfloat16 in mixed precision."""
    gradients: float
    state: float
    """The optimizer's state."""
    activations: float
    head: float
    """The logits of a chunk and what else the head needs."""
    other: float
    """The program and, with fsdp2, the blocks that are whole at a time."""

    @property
    def total(self) -> float:
        """The sum of the parts."""
        return self.weights + self.gradients + self.state + self.activations + self.head + self.other


def memory(work: Work, strategy: Strategy, devices: int, rows: float, program: float = 0.0) -> Memory:
    """Return the memory of each device.

    Args:
        work: work of a step.
        strategy: how the devices share it.
        devices: number of devices.
        rows: rows of a device's batch.
        program: bytes of the program itself.
    """
    activations = work.activations * rows / work.rows
    if strategy is not Strategy.fsdp2:
        weights = float(work.weights + work.casts)
        copies = 2 if strategy is Strategy.ddp else 1  # DDP copies the gradients into buckets
        return Memory(weights, copies * work.gradients, work.state, activations, work.head, program)
    # The block that is computed and the next one are whole, and so are embeddings and head during the whole step; so
    # are their gradients until they are divided.
    whole = (work.weights + work.casts) * (work.outside + 2 * work.largest_block) / work.parameters
    whole += work.gradients * (work.outside + work.largest_block) / work.parameters
    weights, gradients, state = (part / devices for part in (work.weights, work.gradients, work.state))
    return Memory(weights, gradients, state, activations, work.head, whole + program)


def choose(work: Work, device: Device, devices: int, rows: int) -> tuple[Strategy, Memory]:
    """Return the simplest strategy that fits, and the memory it needs; if none fits, the memory of the last one."""
    whole = Strategy.one if devices == 1 else Strategy.ddp
    limit = USABLE * device.memory_for(devices)
    needed = memory(work, whole, devices, rows, device.program)
    if needed.total <= limit:
        return whole, needed
    if devices > 1:
        needed = memory(work, Strategy.fsdp2, devices, rows, device.program)
        if needed.total <= limit:
            return Strategy.fsdp2, needed
    return Strategy.none, needed


def all_reduce_bytes(size: float, devices: int) -> float:
    """Bytes that each device sends in a ring all-reduce: every part once to be added up and once to be spread."""
    return 2 * (devices - 1) / devices * size


def gather_bytes(size: float, devices: int) -> float:
    """Bytes that each device sends in an all-gather or a reduce-scatter of `size` bytes."""
    return (devices - 1) / devices * size


def communication_seconds(work: Work, strategy: Strategy, device: Device, devices: int) -> float:
    """Seconds of the transfers of an optimizer step, whether or not they overlap with products.

    DDP sums the gradients once per optimizer step. FSDP2 gathers the weights twice and divides the gradients once in
    each batch.
    """
    if devices == 1:
        return 0.0
    if strategy is Strategy.ddp:
        sent = all_reduce_bytes(work.gradients, devices)
    else:
        weights, gradients = gather_bytes(work.weights, devices), gather_bytes(work.gradients, devices)
        sent = work.micro_batches * (2 * weights + gradients)
    return sent / device.bandwidth(devices)


@dataclass(frozen=True)
class Speed:
    """How fast one device computes: measured, or from its peak."""

    seconds: float | None = None
    """Measured seconds of a batch of `Work.rows` rows, its update included; None to compute it."""
    flops: float = 0.0
    """Operations per second that products reach, a share of the peak."""


def step_seconds(
    work: Work, strategy: Strategy, device: Device, devices: int, rows: int, speed: Speed
) -> tuple[float, float]:
    """Return the seconds of an optimizer step, and those in which products wait for transfers.

    With DDP the transfers overlap with the backward pass, with FSDP2 with all products, as far as they are as long.
    """
    if speed.seconds is not None:
        compute = work.micro_batches * speed.seconds * rows / work.rows
        update = 0.0
    else:
        compute = work.micro_batches * (work.flops(rows) / speed.flops + TRAINER_SECONDS)
        shares = devices if strategy is Strategy.fsdp2 else 1
        update = TRAFFIC * work.gradients / shares / device.memory_bandwidth if device.memory_bandwidth else 0.0
    transfers = communication_seconds(work, strategy, device, devices)
    hidden = (BACKWARD if strategy is Strategy.ddp else 1.0) * compute / work.micro_batches if device.overlaps else 0.0
    if strategy is Strategy.fsdp2:
        hidden *= work.micro_batches
    waiting = max(0.0, transfers - hidden)
    return compute + update + waiting, waiting

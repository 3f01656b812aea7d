"""What the processes of a run tell one another."""

from typing import TypeVar

import lightning.pytorch as pl
import torch

T = TypeVar("T")


def gathered(trainer: pl.Trainer, own: T) -> list[T]:
    """What each process has, by its number; every process must call it."""
    if trainer.world_size == 1:
        return [own]
    found: list[T] = [own] * trainer.world_size
    torch.distributed.all_gather_object(found, own)
    return found


def sum_over_processes(trainer: pl.Trainer, count: int) -> int:
    """The sum of what each process counts; all of them must call it."""
    if trainer.world_size == 1:
        return count
    # float64 keeps whole numbers exact up to 2**53; Apple's GPU, which has none, is never one of several.
    own = torch.tensor(count, dtype=torch.float64, device=trainer.strategy.root_device)
    total = trainer.strategy.reduce(own, reduce_op="sum")
    return round(float(total))

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

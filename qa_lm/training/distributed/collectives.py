"""What the processes of a run do together: gather, sum, print once."""

import sys
from typing import TypeVar

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import TQDMProgressBar

T = TypeVar("T")


def all_gathered(trainer: pl.Trainer, own: T) -> list[T]:
    """Return the objects of all processes, by rank. Every process must call it."""
    if trainer.world_size == 1:
        return [own]
    objects: list[T] = [own] * trainer.world_size
    torch.distributed.all_gather_object(objects, own)
    return objects


def sum_over_processes(trainer: pl.Trainer, count: int) -> int:
    """Return the sum of a count over all processes. Every process must call it."""
    if trainer.world_size == 1:
        return count
    # float64 keeps integers exact up to 2**53. Apple's GPU lacks it, but never runs several processes.
    own = torch.tensor(count, dtype=torch.float64, device=trainer.strategy.root_device)
    total = trainer.strategy.reduce(own, reduce_op="sum")
    return round(float(total))


def disconnect(trainer: pl.Trainer) -> None:
    """End the process group, since nothing is left to do together. Every process must call it."""
    if trainer.world_size > 1:
        trainer.strategy.barrier()
        torch.distributed.destroy_process_group()


def disconnect_after_failure() -> None:
    """End a process group of gloo, whose threads can abort the process at its exit. That of NCCL would wait."""
    if torch.distributed.is_initialized() and torch.distributed.get_backend() == "gloo":
        torch.distributed.destroy_process_group()


def print_once(trainer: pl.Trainer, line: str) -> None:
    """Print a line in the first process only, without breaking a progress bar."""
    if not trainer.is_global_zero:
        return
    if isinstance(trainer.progress_bar_callback, TQDMProgressBar) and trainer.progress_bar_callback.is_enabled:
        trainer.progress_bar_callback.print(line, file=sys.stdout)
        sys.stdout.flush()
    else:
        print(line, flush=True)

"""Which precision trains fastest on this machine, measured where the settings leave it open."""

import statistics
import time
from typing import Any, NamedTuple

import torch

FASTER = 1.3
"""bfloat16 must multiply so many times as fast as float32 to be worth its conversions."""
ROWS, WIDTH = 512, 1024
"""Shape of the products that are timed: rows x width times width x width, a few milliseconds in all."""


def device_of(trainer_arguments: dict[str, Any]) -> torch.device:
    """The device that Lightning will take."""
    accelerator = trainer_arguments.get("accelerator", "auto")
    if accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available():
        return torch.device("cuda", 0)
    if accelerator in ("auto", "gpu", "mps") and torch.backends.mps.is_available():
        return torch.device("mps")
    return torch.device("cpu")


class Precision(NamedTuple):
    """How a run multiplies."""

    name: str
    """As `lightning.Trainer` names it."""
    reason: str
    """For people."""


def choose_precision(trainer_arguments: dict[str, Any]) -> Precision:
    """What the settings say, else what the machine multiplies faster, measured."""
    given = trainer_arguments.get("precision")
    if given is not None:
        return Precision(str(given), f"{given}, as set")
    if trainer_arguments.get("devices", 1) not in (1, "1", "auto") or trainer_arguments.get("num_nodes", 1) > 1:
        # Each process would measure for itself, and they must agree.
        if device_of(trainer_arguments).type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False):
            return Precision("bf16-mixed", "bf16-mixed, which these GPUs have")
        return Precision("32-true", "32-true; with several processes trainer.precision=bf16-mixed is not tried")
    device = device_of(trainer_arguments)
    if device.type == "mps":
        return Precision("32-true", "32-true")
    times = faster_by(device)
    if times >= FASTER:
        return Precision("bf16-mixed", f"bf16-mixed, which multiplies {times:.2g} times as fast as float32 here")
    return Precision("32-true", f"32-true; bfloat16 multiplies only {times:.2g} times as fast here")


def faster_by(device: torch.device) -> float:
    """How many times as fast as float32 the device multiplies matrices of bfloat16."""
    return _seconds(device, torch.float32) / _seconds(device, torch.bfloat16)


def _seconds(device: torch.device, dtype: torch.dtype) -> float:
    left = torch.ones(ROWS, WIDTH, device=device, dtype=dtype)
    right = torch.ones(WIDTH, WIDTH, device=device, dtype=dtype)
    times = []
    for _ in range(7):
        start = time.perf_counter()
        product = left @ right
        product[0, 0].item()  # waits for a GPU
        times.append(time.perf_counter() - start)
    return statistics.median(times[2:])

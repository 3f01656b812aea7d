"""The choice of the precision: measured on this machine if the settings leave it open."""

import statistics
import time
from typing import Any, NamedTuple

import torch

MIN_SPEEDUP = 1.3
"""Minimum speedup of bfloat16 over float32 products that outweighs its conversions."""
ROWS, WIDTH = 512, 1024
"""Shape of the products that are timed: (rows, width) times (width, width), a few milliseconds in total."""
FORMATS = {"32-true": "32-bit floats", "64-true": "64-bit floats", "bf16-mixed": "bfloat16 mixed precision"}


def device_of(trainer_arguments: dict[str, Any]) -> torch.device:
    """Return the device that Lightning will use."""
    accelerator = trainer_arguments.get("accelerator", "auto")
    if accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available():
        return torch.device("cuda", 0)
    if accelerator in ("auto", "gpu", "mps") and torch.backends.mps.is_available():
        return torch.device("mps")
    return torch.device("cpu")


class Precision(NamedTuple):
    """The precision of a run."""

    name: str
    """Its name in `lightning.Trainer`."""
    reason: str
    """The precision and why it was chosen, as text for the user."""


def choose_precision(trainer_arguments: dict[str, Any]) -> Precision:
    """Return the precision of the settings, or else the one in which this machine multiplies faster."""
    name, reason = _choice(trainer_arguments)
    return Precision(name, f"{FORMATS.get(name, 'precision')} ({name}: {reason})")


def _choice(trainer_arguments: dict[str, Any]) -> tuple[str, str]:
    given = trainer_arguments.get("precision")
    if given is not None:
        return str(given), "as set"
    if trainer_arguments.get("devices", 1) not in (1, "1", "auto") or trainer_arguments.get("num_nodes", 1) > 1:
        # Each process would measure separately, and the results must agree.
        if device_of(trainer_arguments).type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False):
            return "bf16-mixed", "supported by these GPUs"
        return "32-true", "bf16-mixed is not tried with several processes"
    device = device_of(trainer_arguments)
    if device.type == "mps":
        return "32-true", "the default on Apple GPUs"
    speedup = bfloat16_speedup(device)
    if speedup >= MIN_SPEEDUP:
        return "bf16-mixed", f"{speedup:.2g} times as fast as 32-bit floats here"
    return "32-true", f"bfloat16 is only {speedup:.2g} times as fast here"


def bfloat16_speedup(device: torch.device) -> float:
    """Measure how many times as fast as float32 the device multiplies bfloat16 matrices."""
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

"""Memory: how much is free, how much a run needs, the peak of this process, and the settings of the allocator."""

import ctypes
import platform
import sys
from pathlib import Path

import psutil
import torch

from qa_lm.config.enums import OptimizerKind
from qa_lm.config.schema import TrainConfig
from qa_lm.errors import OutOfMemory, UserError

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

CGROUP = Path("/sys/fs/cgroup")
FLOATS = {OptimizerKind.adamw: 4, OptimizerKind.muon: 3}
"""Minimum float32 values per parameter in training: the weight, its gradient, the state of the optimizer."""
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
"""Parameters of glibc's `mallopt`."""
MESSAGES = ("can't allocate memory", "not enough memory", "out of memory", "cannot allocate memory")


def peak_memory(device: torch.device) -> int:
    """Return the peak memory of this process, bytes: of the GPU for a GPU, else main memory; 0 if it is unknown."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if resource is None:
        return int(getattr(psutil.Process().memory_info(), "peak_wset", 0))  # Windows
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # macOS counts in bytes, Linux in KiB


def free_memory(device: torch.device) -> int:
    """Return the bytes that this process can still allocate: on the GPU, or within machine, container and limits."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    free = [psutil.virtual_memory().available]
    try:
        used = int((CGROUP / "memory.current").read_text(encoding="ascii"))
        free.append(int((CGROUP / "memory.max").read_text(encoding="ascii")) - used)
    except (OSError, ValueError):  # no container, or one without a limit ("max")
        pass
    if resource is not None:
        limit = resource.getrlimit(resource.RLIMIT_AS)[0]
        if limit != resource.RLIM_INFINITY:
            free.append(limit - psutil.Process().memory_info().vms)
    return max(0, min(free))


def keep_freed_memory() -> None:
    """Let this process keep the memory that it frees, instead of requesting it from the kernel in every step.

    glibc maps each large block again, and the kernel then zeroes it page by page, which took a tenth of a step on a CPU
    (docs/log.md, "freed memory is kept"). Other C libraries are not affected.
    """
    if platform.libc_ver()[0] == "glibc":
        library = ctypes.CDLL(None)
        library.mallopt(M_MMAP_MAX, 0)  # do not map large blocks separately
        library.mallopt(M_TRIM_THRESHOLD, -1)  # do not return the end of the heap to the kernel


def check_memory(config: TrainConfig, parameters: int, device: torch.device) -> None:
    """Refuse a model that needs more memory than is free, whatever the batch size is.

    Args:
        config: settings, without open (null) values.
        parameters: number of parameters of the model.
        device: the device of training.

    Raises:
        UserError: names the needed and the free memory, and the settings to lower.
    """
    kept = FLOATS[config.optimizer.kind] if config.optimizer._target_ is None else 2
    need, free = 4 * kept * parameters, free_memory(device)
    if need > free:
        model = config.model
        raise UserError(
            f"model: {parameters / 1e6:,.0f} million parameters need at least {need / 1e9:.1f} GB to be trained, and "
            f"{free / 1e9:.1f} GB are free; lower model.hidden_size ({model.hidden_size}) or model.layers "
            f"({model.layers})"
        )


def as_out_of_memory(error: BaseException, config: TrainConfig) -> OutOfMemory | None:
    """Convert an error that means that memory is used up; None for any other error."""
    text = str(error).lower()
    known = isinstance(error, MemoryError | torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError | OSError) and any(message in text for message in MESSAGES)
    )
    if not known:
        return None
    data = config.data
    rows = f", data.row_tokens{_now(data.row_tokens)}" if data.packing else ""
    return OutOfMemory(
        f"out of memory; lower data.batch_size{_now(data.batch_size)}{rows} or model.hidden_size"
        f"{_now(config.model.hidden_size)}; evaluation.batch_size ({config.evaluation.batch_size}) if it happened "
        "after training"
    )


def _now(value: int | None) -> str:
    """The value of a setting in parentheses; empty if it is open (null)."""
    return "" if value is None else f" ({value})"

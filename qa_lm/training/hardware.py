"""What this machine offers to a run: its device, the precision that is fastest there, and its memory."""

import ctypes
import os
import platform
import statistics
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import torch

from qa_lm.config.enums import OptimizerKind
from qa_lm.config.schema import TrainConfig
from qa_lm.config.trainer_arguments import shards_model
from qa_lm.errors import OutOfMemory, UserError

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


def process_count(trainer_arguments: dict[str, Any]) -> int:
    """Return the number of processes that Lightning will use: one for each device of each node."""
    devices, nodes = trainer_arguments.get("devices"), int(trainer_arguments.get("num_nodes") or 1)
    if isinstance(devices, list):
        return nodes * len(devices)
    text = str(devices)
    if "," in text:
        return nodes * len([part for part in text.split(",") if part.strip()])
    if text.isdecimal():
        return nodes * int(text)
    return nodes * (torch.cuda.device_count() if device_of(trainer_arguments).type == "cuda" else 1)


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
    if process_count(trainer_arguments) > 1:
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
    return product_seconds(device, torch.float32) / product_seconds(device, torch.bfloat16)


def product_seconds(device: torch.device, dtype: torch.dtype) -> float:
    """Measure the median seconds of a product of shape (`ROWS`, `WIDTH`) times (`WIDTH`, `WIDTH`)."""
    left = torch.ones(ROWS, WIDTH, device=device, dtype=dtype)
    right = torch.ones(WIDTH, WIDTH, device=device, dtype=dtype)
    times = []
    for _ in range(7):
        start = time.perf_counter()
        product = left @ right
        product[0, 0].item()  # waits for a GPU
        times.append(time.perf_counter() - start)
    return statistics.median(times[2:])


try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

CGROUP = Path("/sys/fs/cgroup")
FLOATS = {OptimizerKind.adamw: 4, OptimizerKind.muon: 3}
"""Minimum float32 values per parameter in training: the weight, its gradient, the state of the optimizer."""
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_MMAP_MAX = -1, -3, -4
"""Parameters of glibc's `mallopt`."""
LARGE_BLOCK = 1 << 20
"""Bytes of a block of memory that is returned at once with FSDP2."""
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
        own = int(os.environ.get("LOCAL_RANK", os.environ.get("SLURM_LOCALID", "0"))) % torch.cuda.device_count()
        return torch.cuda.mem_get_info(own)[0]
    free = [psutil.virtual_memory().available]
    try:
        used = int((CGROUP / "memory.current").read_text(encoding="ascii"))
        free.append(int((CGROUP / "memory.max").read_text(encoding="ascii")) - used)
    except (OSError, ValueError):  # no container, or one without a limit ("max")
        pass
    if resource is not None:
        used_memory = psutil.Process().memory_info()
        for kind, used in (
            (resource.RLIMIT_AS, used_memory.vms),
            (resource.RLIMIT_DATA, getattr(used_memory, "data", 0)),
        ):
            limit = resource.getrlimit(kind)[0]
            if limit != resource.RLIM_INFINITY:
                free.append(limit - used)
    return max(0, min(free))


def tune_allocator(trainer_arguments: dict[str, Any]) -> None:
    """Let this process keep the memory that it frees, instead of requesting it from the kernel in every step.

    glibc maps each large block again, and the kernel then zeroes it page by page, which took a tenth of a step on a CPU
    (docs/log.md, "freed memory is kept"). With FSDP2 it returns large blocks at once instead: the blocks of a network
    are gathered and freed in turn, and the pieces that glibc keeps of them take more memory than sharding saves
    (docs/log.md, "FSDP2"). Other C libraries are not affected.
    """
    if platform.libc_ver()[0] != "glibc":
        return
    library = ctypes.CDLL(None)
    if shards_model(trainer_arguments):
        library.mallopt(M_MMAP_THRESHOLD, LARGE_BLOCK)
        return
    library.mallopt(M_MMAP_MAX, 0)  # do not map large blocks separately
    library.mallopt(M_TRIM_THRESHOLD, -1)  # do not return the end of the heap to the kernel


def return_freed_memory() -> None:
    """Return the memory that this process has freed to the kernel, in spite of `tune_allocator`."""
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).malloc_trim(0)


def check_memory(
    config: TrainConfig, parameters: int, device: torch.device, trained: int | None = None, shards: int = 1
) -> None:
    """Refuse a model that needs more memory than is free, whatever the batch size is.

    Args:
        config: settings, without open (null) values.
        parameters: number of parameters of the model.
        device: the device of training.
        trained: number of parameters that are trained; None for all.
        shards: number of processes that share the model, each of which builds it before it is sharded.

    Raises:
        UserError: names the needed and the free memory, and the settings to lower.
    """
    kept = FLOATS[config.optimizer.kind] if config.optimizer._target_ is None else 2
    trained = parameters if trained is None else trained
    weight = 2 if str(config.trainer.get("precision")) == "bf16-true" else 4
    need, free = weight * (parameters + (kept - 1) * trained), free_memory(device)
    if shards > 1:
        # Each process builds the whole model in main memory, and shards one block after the other.
        built = weight * parameters * (1 if device.type == "cuda" else 1 + 1 / shards)
        need //= shards
        if device.type == "cpu" or built > free_memory(torch.device("cpu")):
            need, free = max(need, int(built)), free_memory(torch.device("cpu"))
    if need > free:
        model = config.model
        if model.path is not None:
            lower = "use finetune=lora, trainer.precision=bf16-true or a smaller model"
            raise UserError(
                f"model.path={model.path}: {parameters / 1e6:,.0f} million parameters need at least "
                f"{need / 1e9:.1f} GB to be trained, and {free / 1e9:.1f} GB are free; {lower}"
            )
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

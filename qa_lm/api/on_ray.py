"""Train one run with several workers of a Ray cluster.

Ray places the workers, connects them, and starts all of them again if one is lost; the run then resumes from its last
checkpoint. Ray sets the environment variables that torchrun sets. Each node must have the same number of workers.
"""

import os
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from qa_lm.config.resume import AUTO
from qa_lm.config.schema import TrainConfig
from qa_lm.errors import JobFailed, UserError, first_line
from qa_lm.training.early_checks import check_early

INSTALL = 'training with Ray needs the packages ray and pydantic: pip install -e ".[ray]"'


def train_on_ray(
    config: TrainConfig,
    folder: Path,
    workers: int,
    gpus_per_worker: int = 0,
    cpus_per_worker: int = 1,
    retries: int = 3,
    address: str | None = None,
) -> None:
    """Train with Ray, or resume the run in the folder.

    Args:
        config: all settings.
        folder: the run folder, on a file system that all machines see.
        workers: number of processes.
        gpus_per_worker: 0 or 1.
        cpus_per_worker: CPU cores that Ray reserves for each worker.
        retries: how often the workers may be started again.
        address: a Ray cluster; None for `$RAY_ADDRESS`, else Ray is started on this machine.

    Raises:
        UserError: the settings or a number are invalid, or Ray is not installed.
        JobFailed: the workers failed more often than `retries`; the message has the reason of one.
    """
    for name, value, smallest in (
        ("workers", workers, 1),
        ("cpus_per_worker", cpus_per_worker, 1),
        ("gpus_per_worker", gpus_per_worker, 0),
        ("retries", retries, 0),
    ):
        if value < smallest:
            raise UserError(f"{name} must be at least {smallest}", name)
    if gpus_per_worker > 1:
        raise UserError("gpus_per_worker must be 0 or 1: a worker trains on one GPU; raise workers")
    if find_spec("ray") is None or find_spec("pydantic") is None:
        raise UserError(INSTALL)
    config = replace(config, resume=AUTO)
    check_early(config)
    folder = folder.expanduser().resolve()
    folder.mkdir(parents=True, exist_ok=True)
    resources = {"CPU": float(cpus_per_worker)} | ({"GPU": 1.0} if gpus_per_worker else {})
    job = {"config": config, "folder": str(folder), "cwd": str(Path.cwd())}
    _start(job, address, retries, num_workers=workers, use_gpu=bool(gpus_per_worker), resources_per_worker=resources)


def _start(job: dict[str, Any], address: str | None, retries: int, **scaling: Any) -> None:
    import ray
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer
    from ray.train.v2.api.exceptions import TrainingFailedError

    ray.init(address=address, ignore_reinit_error=True)
    run = RunConfig(
        storage_path=job["folder"],
        name="ray",
        failure_config=FailureConfig(max_failures=retries),
        worker_runtime_env={"env_vars": {"RAY_TRAIN_ENABLE_PRINT_PATCH": "0"}},  # every line would come twice
    )
    try:
        TorchTrainer(
            _worker,
            train_loop_config=job,
            torch_config=TorchConfig(timeout_s=job["config"].distributed.timeout_seconds),
            scaling_config=ScalingConfig(**scaling),
            run_config=run,
        ).fit()
    except TrainingFailedError as error:
        reasons = getattr(error, "worker_failures", None) or {0: error}
        rank, reason = min(reasons.items())
        raise JobFailed(f"worker {rank} failed: {first_line(reason)}") from None


def _worker(job: dict[str, Any]) -> None:
    """Train in one worker, a process that does nothing else."""
    os.chdir(job["cwd"])
    from qa_lm.api.train import train
    from qa_lm.training.hardware import tune_allocator
    from qa_lm.training.trainer import quiet_lightning

    quiet_lightning()
    tune_allocator(job["config"].trainer)
    train(job["config"], job["folder"])

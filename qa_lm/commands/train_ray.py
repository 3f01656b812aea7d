"""Train one run with several workers of a Ray cluster:

    python scripts/train_ray.py FOLDER --workers N [--gpus-per-worker 1] [--cpus-per-worker 1] [--retries N]
        [--address ADDRESS] [group=choice] [key=value]

Ray places the workers, connects them and starts all of them again if one is lost; the run then resumes from its last
checkpoint. The folder must be on a file system that all machines see. Checkpoints are those of any other run.
"""

import argparse
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from qa_lm.commands.exit_codes import exit_code
from qa_lm.config.resume import AUTO
from qa_lm.errors import UserError, first_line

INSTALL = 'train_ray.py needs the packages ray and pydantic: pip install -e ".[ray]"'


def main(arguments: list[str] | None = None) -> int:
    """Train. Returns the exit code."""
    options = _parser().parse_intermixed_args(arguments)
    failures: list[str] = []
    code = exit_code(lambda: failures.extend(_train(options)))
    for failure in failures:
        print(f"error: {failure}", file=sys.stderr)
    return code or int(bool(failures))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Train one run with several workers of a Ray cluster.")
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="the run folder; a run in it is resumed")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="settings, as for train.py")
    parser.add_argument("--workers", type=int, required=True, metavar="N", help="number of processes")
    parser.add_argument("--gpus-per-worker", type=int, default=0, metavar="N", help="0 (default) or 1")
    parser.add_argument("--cpus-per-worker", type=int, default=1, metavar="N", help="CPU cores (default 1)")
    parser.add_argument("--retries", type=int, default=3, metavar="N", help="times to start again (default 3)")
    parser.add_argument("--address", help="a cluster that runs (default: $RAY_ADDRESS, else this machine)")
    return parser


def _train(options: argparse.Namespace) -> list[str]:
    """Train. Returns why it failed, if it did."""
    for name, minimum in (("workers", 1), ("cpus_per_worker", 1), ("gpus_per_worker", 0), ("retries", 0)):
        if getattr(options, name) < minimum:
            raise UserError(f"--{name.replace('_', '-')} must be at least {minimum}")
    if options.gpus_per_worker > 1:
        raise UserError("--gpus-per-worker must be 0 or 1: a worker trains on one GPU; raise --workers")
    if find_spec("ray") is None or find_spec("pydantic") is None:
        raise UserError(INSTALL)
    from qa_lm.config.overrides import compose
    from qa_lm.training.early_checks import check_early

    config = compose(*options.overrides, f"resume={AUTO}")
    check_early(config)
    folder = options.folder.expanduser().resolve()
    folder.mkdir(parents=True, exist_ok=True)
    return _start(options, {"config": config, "folder": str(folder), "cwd": str(Path.cwd())})


def _start(options: argparse.Namespace, job: dict[str, Any]) -> list[str]:
    import ray
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer
    from ray.train.v2.api.exceptions import TrainingFailedError

    ray.init(address=options.address, log_to_driver=True)
    resources = {"CPU": float(options.cpus_per_worker)}
    if options.gpus_per_worker:
        resources["GPU"] = 1.0
    trainer = TorchTrainer(
        _worker,
        train_loop_config=job,
        scaling_config=ScalingConfig(
            num_workers=options.workers, use_gpu=bool(options.gpus_per_worker), resources_per_worker=resources
        ),
        run_config=RunConfig(
            storage_path=job["folder"],
            name="ray",
            failure_config=FailureConfig(max_failures=options.retries),
            worker_runtime_env={"env_vars": {"RAY_TRAIN_ENABLE_PRINT_PATCH": "0"}},  # every line would come twice
        ),
    )
    try:
        trainer.fit()
    except TrainingFailedError as error:
        reasons = getattr(error, "worker_failures", {0: error})
        return [f"worker {rank}: {first_line(reason)}" for rank, reason in sorted(reasons.items())[:1]]
    return []


def _worker(job: dict[str, Any]) -> None:
    """Train in one worker: Ray has set the environment variables that torchrun sets."""
    import os

    os.chdir(job["cwd"])
    from qa_lm.api.train import train
    from qa_lm.training.hardware import tune_allocator
    from qa_lm.training.trainer import quiet_lightning

    quiet_lightning()
    tune_allocator(job["config"].trainer)
    train(job["config"], job["folder"])

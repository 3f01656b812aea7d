"""The strategy of a run: how its processes share the work."""

import os
from datetime import timedelta
from pathlib import Path

from lightning.fabric.plugins import ClusterEnvironment
from lightning.pytorch.plugins.environments import TorchElasticEnvironment
from lightning.pytorch.strategies import DDPStrategy

from qa_lm.config.enums import FSDP2
from qa_lm.config.schema import TrainConfig
from qa_lm.run.run_folder import CHECKPOINTS
from qa_lm.training.distributed.fsdp2 import FSDP2Strategy
from qa_lm.training.distributed.launch import by_torchrun
from qa_lm.training.hardware import process_count

Strategy = DDPStrategy | FSDP2Strategy | str


def build_strategy(config: TrainConfig, folder: Path) -> Strategy:
    """Build the strategy that `trainer.strategy` names; ddp and fsdp2 with the timeout of the settings.

    Args:
        config: all settings.
        folder: the run folder.
    """
    name = config.trainer.get("strategy") or "auto"
    timeout = timedelta(seconds=config.distributed.timeout_seconds)
    if name == FSDP2:
        return FSDP2Strategy(folder / CHECKPOINTS, timeout)
    if name in ("auto", "ddp") and (name == "ddp" or process_count(config.trainer) > 1):
        return DDPStrategy(timeout=timeout)
    return str(name)  # Lightning knows more


def cluster_environment() -> list[ClusterEnvironment]:
    """Lightning's view of the processes that torchrun or Ray has started; empty where it finds out itself.

    Ray does not set all that Lightning looks for, and inside of a SLURM job Lightning would take its workers for tasks.
    """
    if not by_torchrun(os.environ):
        return []
    os.environ.setdefault("GROUP_RANK", os.environ.get("NODE_RANK", "0"))
    return [TorchElasticEnvironment()]

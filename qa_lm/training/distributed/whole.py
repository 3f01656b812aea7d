"""The whole model in the first process, after training with shards."""

from dataclasses import replace
from typing import Any

import lightning.pytorch as pl

from qa_lm.modeling.distributed.sharding import gathered, without_weights
from qa_lm.training.build import Task
from qa_lm.training.distributed.fsdp2 import FSDP2Strategy


def empty_copy(task: Task, trainer: pl.Trainer) -> tuple[Any, ...] | None:
    """A copy of the model and its adapter without weights, taken before training; None if nothing will be sharded."""
    if not isinstance(trainer.strategy, FSDP2Strategy):
        return None
    return without_weights(task.module.model, task.adapter)


def with_whole_model(task: Task, trainer: pl.Trainer, empty: tuple[Any, ...] | None) -> Task:
    """Gather the trained parameters in the first process. Every process must call it.

    Args:
        task: the module after training.
        trainer: its Trainer.
        empty: what `empty_copy` returned.

    Returns:
        The task. Only in the first process does its model have weights.
    """
    if empty is None:
        return task
    module, first = task.module, trainer.is_global_zero
    trainer.strategy.optimizers, trainer.strategy.lr_scheduler_configs = [], []  # frees state larger than the model
    module.zero_grad(set_to_none=True)
    state = gathered(module.state_dict(keep_vars=True), first)
    module.model, adapter = empty
    if first:
        module.load_state_dict(state, assign=True)
        module.model.tie_weights()
    return replace(task, adapter=adapter)

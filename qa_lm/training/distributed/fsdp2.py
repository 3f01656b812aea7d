"""FSDP2 for the Trainer: `trainer.strategy=fsdp2`.

Lightning's `ModelParallelStrategy` with one dimension of data parallelism. Its checkpoints are those of every other
strategy, one file with whole tensors under the same names and in the same order, so that a run can be resumed with
another strategy and another number of processes. They are gathered one tensor at a time, on the disk where main memory
is short.
"""

from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.core.optimizer import LightningOptimizer
from lightning.pytorch.strategies import ModelParallelStrategy
from torch import Tensor
from torch.optim import Optimizer

from qa_lm.modeling.distributed.sharding import gathered, sharded_like
from qa_lm.modeling.lora import without_frozen
from qa_lm.run.checkpoint import read_checkpoint
from qa_lm.training.checkpointing.best_state import room_for


class FSDP2Strategy(ModelParallelStrategy):
    """Shards parameters, gradients and optimizer state between all processes.

    Args:
        folder: where checkpoints are gathered on the disk if main memory is short; it need not exist yet.
        timeout: time after which a process that waits for another one gives up.
    """

    def __init__(self, folder: Path, timeout: timedelta) -> None:
        super().__init__(tensor_parallel_size=1, save_distributed_checkpoint=False, timeout=timeout)
        self.folder = folder

    @property
    def lightning_restore_optimizer(self) -> bool:
        """Whether Lightning loads the state of the optimizer, by `load_optimizer_state_dict`."""
        return True

    def setup_environment(self) -> None:
        """Connect the processes. Lightning's default would replicate the model within a node."""
        self._data_parallel_size = self.num_nodes * self.num_processes
        super().setup_environment()

    def lightning_module_state_dict(self) -> dict[str, Any]:
        """The whole state of the module in the first process; empty in the others."""
        module = self._module()
        return self._gathered(without_frozen(module, module.state_dict(keep_vars=True)))

    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        """The whole state of an optimizer in the first process; empty in the others."""
        state = (optimizer._optimizer if isinstance(optimizer, LightningOptimizer) else optimizer).state_dict()
        flat = {(index, name): value for index, values in state["state"].items() for name, value in values.items()}
        whole = self._gathered({key: value for key, value in flat.items() if isinstance(value, Tensor)})
        if not self.is_global_zero:
            return {}
        values: dict[int, dict[str, Any]] = {index: {} for index in state["state"]}
        for (index, name), value in flat.items():
            values[index][name] = whole.get((index, name), value)
        return state | {"state": values}

    def load_checkpoint(self, checkpoint_path: Any, weights_only: bool | None = None) -> dict[str, Any]:
        """Read the checkpoint, of which each process keeps its part only."""
        return read_checkpoint(Path(checkpoint_path))

    def load_model_state_dict(self, checkpoint: Mapping[str, Any], strict: bool = True) -> None:
        """Load this process's part of each parameter."""
        module = self._module()
        own = module.state_dict()
        state = {name: sharded_like(value, own[name]) for name, value in checkpoint["state_dict"].items()}
        module.load_state_dict(state, strict=strict)

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        """Load this process's part of the state of the optimizer."""
        for optimizer, state in zip(self.optimizers, checkpoint["optimizer_states"], strict=True):
            parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
            values = {
                index: {
                    name: sharded_like(value, parameters[index]) if isinstance(value, Tensor) else value
                    for name, value in each.items()
                }
                for index, each in state["state"].items()
            }
            optimizer.load_state_dict(dict(state) | {"state": values})

    def _gathered(self, tensors: Mapping[Any, Tensor]) -> dict[Any, Tensor]:
        size = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
        is_short = room_for(size, torch.device("cpu")) is None
        if self.is_global_zero and is_short:
            self.folder.mkdir(parents=True, exist_ok=True)
        return gathered(tensors, self.is_global_zero, self.folder if is_short else None)

    def _module(self) -> pl.LightningModule:
        assert self.lightning_module is not None
        return self.lightning_module

"""Shard a model between processes with FSDP2 (`torch.distributed.fsdp.fully_shard`), and gather it again.

Each process keeps a part of every parameter, gradient and optimizer state. A block is gathered while it computes; the
embeddings, the last norm and the head are gathered for the whole of a forward pass, because the loss calls the head
apart from the body.
"""

import copy
import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from qa_lm.modeling.causal_lm import blocks

T = TypeVar("T")


class _Computation(nn.Module):
    """A function of a model as the forward method of a module: FSDP2 gathers parameters when a module is called."""

    def __init__(self, model: nn.Module, function: Callable[..., Any]) -> None:
        super().__init__()
        self.model, self.function = model, function

    def forward(self, *arguments: Any) -> Any:
        return self.function(*arguments)


def shard(model: nn.Module, mesh: DeviceMesh, function: Callable[..., T]) -> Callable[..., T]:
    """Shard the parameters of a model, block by block, in place.

    Args:
        model: the model.
        mesh: the processes, in one dimension.
        function: what is computed with the model.

    Returns:
        The function, which now gathers the parameters that it needs. Every process must call it equally often.
    """
    for block in blocks(model):
        fully_shard(block, mesh=mesh)
    whole = _Computation(model, function)
    fully_shard(whole, mesh=mesh, reshard_after_forward=False)
    return lambda *arguments: whole(*arguments)  # not the module itself, which would become a part of its owner


def is_sharded(model: nn.Module) -> bool:
    """Whether the parameters of a model are sharded."""
    return any(isinstance(module, FSDPModule) for module in model.modules())


def without_weights(*modules: nn.Module | None) -> tuple[Any, ...]:
    """Copies of modules whose parameters have shapes and no memory. Modules that share parameters share them again."""
    parameters = {id(each): each for module in modules if module is not None for each in module.parameters()}
    empty = {
        key: nn.Parameter(torch.empty_like(each, device="meta"), each.requires_grad) for key, each in parameters.items()
    }
    return copy.deepcopy(modules, dict(empty))


def gathered(tensors: Mapping[str, Tensor], keep: bool, folder: Path | None = None) -> dict[str, Tensor]:
    """Gather sharded tensors, one after the other. Every process must call it.

    Args:
        tensors: tensors by name; those that are not sharded stay as they are. The same tensor under two names, as tied
            weights, is gathered once.
        keep: whether this process keeps the result.
        folder: where to keep it on the disk, in unnamed files that vanish with the tensors; None for main memory.

    Returns:
        The tensors in main memory or on the disk; empty without `keep`.

    Raises:
        OSError: the disk is full.
    """
    kept: dict[str, Tensor] = {}
    names: dict[int, str] = {}
    for name, tensor in tensors.items():
        first = names.setdefault(id(tensor), name)
        if first != name:
            whole = kept.get(first)
        else:
            whole = tensor.full_tensor().detach() if isinstance(tensor, DTensor) else tensor.detach()
            whole = _kept(whole, folder) if keep else None
        if whole is not None:
            kept[name] = whole
    return kept


def _kept(tensor: Tensor, folder: Path | None) -> Tensor:
    return tensor.to("cpu", copy=True) if folder is None else _on_disk(tensor, folder)


def _on_disk(tensor: Tensor, folder: Path) -> Tensor:
    if not tensor.numel():
        return tensor.cpu()
    handle, name = tempfile.mkstemp(prefix=".gathered.", dir=folder)
    try:
        if hasattr(os, "posix_fallocate"):  # a full disk would kill the process when a mapped page is written
            os.posix_fallocate(handle, 0, tensor.numel() * tensor.element_size())
        mapped = torch.from_file(name, shared=True, size=tensor.numel(), dtype=tensor.dtype)
    finally:
        os.close(handle)
        os.unlink(name)
    return mapped.view(tensor.shape).copy_(tensor)


def sharded_like(tensor: Tensor, parameter: Tensor) -> Tensor:
    """This process's part of a whole tensor of the shape of a sharded parameter; any other tensor as it is."""
    if not isinstance(parameter, DTensor) or tensor.shape != parameter.shape:
        return tensor
    own = tensor.to(parameter.device)
    return distribute_tensor(own, parameter.device_mesh, parameter.placements, src_data_rank=None)

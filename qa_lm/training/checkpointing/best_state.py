"""The best state of a run in memory, so that an improvement costs a copy and not a write to the disk."""

import copy
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from qa_lm.training.hardware import free_memory

State = dict[str, Any]


class BestState:
    """The newest best state: held by reference at first, and copied before training changes its tensors.

    A copy reuses the memory of the former copy, because allocating memory takes longer than copying.

    Args:
        shares_memory: whether the tensors of a state are those that are being trained, so that it must be copied.
    """

    def __init__(self, shares_memory: bool = True) -> None:
        self.shares_memory = shares_memory
        self.state: State | None = None
        """The state; None if there is none in memory."""
        self.step: int | None = None
        """The optimizer step of the state. It stays known after `drop`."""
        self.written = True
        """Whether the state is on the disk."""
        self.copied = True
        """Whether the state is a copy, which training does not change."""
        self._buffers: dict[int, list[Tensor]] = defaultdict(list)

    def set(self, state: State) -> None:
        """Hold a new state by reference."""
        self.state, self.step, self.written = state, state["global_step"], False
        self.copied = not self.shares_memory

    def device_with_room(self) -> torch.device | None:
        """Return where a copy fits: the state's device, else main memory; None if neither has room."""
        assert self.state is not None
        sizes = {tensor.untyped_storage().data_ptr(): tensor for tensor in _tensors(self.state)}.values()
        device = max(sizes, key=lambda tensor: tensor.untyped_storage().nbytes()).device if sizes else None
        need = sum(tensor.untyped_storage().nbytes() for tensor in sizes)
        return room_for(need - sum(size * len(free) for size, free in self._buffers.items()), device)

    def copy(self, device: torch.device) -> None:
        """Copy the state to the device, so that training may continue."""
        assert self.state is not None
        reusable, self._buffers = self._buffers, defaultdict(list)
        self.state, self.copied = self._copy(self.state, device, reusable, {}), True

    def drop(self) -> None:
        """Drop a state that was not copied, because training is about to change it."""
        self.state, self.copied = None, True

    def free(self) -> None:
        """Release all memory."""
        self.drop()
        self._buffers.clear()

    def _copy(self, value: Any, device: torch.device, reusable: dict[int, list[Tensor]], known: dict[int, Any]) -> Any:
        """Copy all containers and tensors of a value. Tensors that share memory share it in the copy too."""
        if isinstance(value, Tensor):
            storage = value.untyped_storage()
            if storage.data_ptr() not in known:
                source = torch.empty(0, dtype=torch.uint8, device=value.device).set_(storage)
                free = reusable[storage.nbytes()]
                buffer = free.pop() if free else torch.empty_like(source, device=device)
                self._buffers[storage.nbytes()].append(buffer)
                known[storage.data_ptr()] = buffer.copy_(source)
            own = torch.empty(0, dtype=value.dtype, device=known[storage.data_ptr()].device)
            copied = known[storage.data_ptr()].untyped_storage()
            return own.set_(copied, value.storage_offset(), value.size(), value.stride())
        if isinstance(value, dict):
            items = copy.copy(value)  # with its class and its attributes, such as a state dict's versions
            items.update((key, self._copy(each, device, reusable, known)) for key, each in value.items())
            return items
        if type(value) in (list, tuple):
            return type(value)(self._copy(each, device, reusable, known) for each in value)
        return value


def room_for(size: int, device: torch.device | None) -> torch.device | None:
    """Return the device, or main memory, with room for twice this number of bytes; None if neither has it."""
    main = torch.device("cpu")
    return next((place for place in (device or main, main) if 2 * size <= free_memory(place)), None)


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict):
        for each in value.values():
            yield from _tensors(each)
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _tensors(each)

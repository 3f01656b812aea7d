"""The best state of a run in memory, so that an improvement costs a copy and not a write to the disk."""

import copy
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from qa_lm.training.memory import free_memory

State = dict[str, Any]


class KeptState:
    """The newest state given to it: first by reference, and copied before training changes its tensors.

    The memory of a copy is used again for the next one, because fresh memory costs the kernel more time than the copy.
    """

    def __init__(self) -> None:
        self.state: State | None = None
        """As it was when it was given; None if there is none in memory."""
        self.step: int | None = None
        """Its optimizer step; also known when the state itself was dropped."""
        self.written = True
        """Whether it is on the disk."""
        self.copied = True
        """Whether it stays as it is while training goes on."""
        self._buffers: dict[int, list[Tensor]] = defaultdict(list)

    def give(self, state: State) -> None:
        """Take a state whose tensors are those in training."""
        self.state, self.step, self.written, self.copied = state, state["global_step"], False, False

    def place(self) -> torch.device | None:
        """Where a copy finds room: on the state's device, else in main memory; None if there is none."""
        assert self.state is not None
        sizes = {tensor.untyped_storage().data_ptr(): tensor for tensor in _tensors(self.state)}.values()
        device = max(sizes, key=lambda tensor: tensor.untyped_storage().nbytes()).device if sizes else None
        need = sum(tensor.untyped_storage().nbytes() for tensor in sizes)
        return room_for(need - sum(size * len(free) for size, free in self._buffers.items()), device)

    def copy(self, place: torch.device) -> None:
        """Copy the state, so that training may go on."""
        assert self.state is not None
        reusable, self._buffers = self._buffers, defaultdict(list)
        self.state, self.copied = self._copied(self.state, place, reusable, {}), True

    def drop(self) -> None:
        """Forget a state that was not copied: training goes on to change it."""
        self.state, self.copied = None, True

    def free(self) -> None:
        """Give all memory back."""
        self.drop()
        self._buffers.clear()

    def _copied(self, value: Any, place: torch.device, reusable: dict[int, list[Tensor]], known: dict[int, Any]) -> Any:
        """The value with all containers and tensors copied; what shares memory there shares it here."""
        if isinstance(value, Tensor):
            storage = value.untyped_storage()
            if storage.data_ptr() not in known:
                source = torch.empty(0, dtype=torch.uint8, device=value.device).set_(storage)
                free = reusable[storage.nbytes()]
                buffer = free.pop() if free else torch.empty_like(source, device=place)
                self._buffers[storage.nbytes()].append(buffer)
                known[storage.data_ptr()] = buffer.copy_(source)
            own = torch.empty(0, dtype=value.dtype, device=known[storage.data_ptr()].device)
            copied = known[storage.data_ptr()].untyped_storage()
            return own.set_(copied, value.storage_offset(), value.size(), value.stride())
        if isinstance(value, dict):
            items = copy.copy(value)  # with its class and its attributes, such as a state dict's versions
            items.update((key, self._copied(each, place, reusable, known)) for key, each in value.items())
            return items
        if type(value) in (list, tuple):
            return type(value)(self._copied(each, place, reusable, known) for each in value)
        return value


def room_for(size: int, device: torch.device | None) -> torch.device | None:
    """Where so many bytes can be kept and as many again stay free: on the device or in main memory; None if nowhere."""
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

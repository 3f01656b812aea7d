"""Start a script sooner: imports without garbage collection, and transformers without parts that answers never use.

With its models transformers imports torch's compiler, distributed tensors and scipy's optimisers: 2 of 5 seconds. A
process that only answers compiles nothing, has one device and matches no boxes. `qa_lm` uses this in its scripts only.
"""

import gc
import importlib
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import ModuleType
from typing import Any
from unittest import mock

DYNAMO = "torch._dynamo"
INDEXING = f"{DYNAMO}._trace_wrapped_higher_order_op"
MODULES = ("transformers.modeling_utils", "transformers.masking_utils")
"""The modules of transformers that import torch's compiler."""


@contextmanager
def without_garbage_collection() -> Iterator[None]:
    """Collect no garbage until the block ends, and never look through the objects that exist then: imports create many
    that stay. Looking through them again and again takes a fifth of the time of imports, and a third of a short run."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if enabled:
            gc.enable()


@contextmanager
def light_transformers() -> Iterator[None]:
    """Import transformers without torch's compiler, distributed tensors and scipy; load the model within the block.

    For the rest of the process transformers takes distributed tensors and scipy as not installed. Code that uses
    `torch._dynamo` gets the real one. Nothing is changed if transformers has loaded its models already, or if a version
    of transformers or torch has other names.
    """
    stand_ins = _stand_ins()
    if MODULES[0] not in sys.modules and DYNAMO not in sys.modules:
        try:
            _set_unavailable()
            sys.modules.update(stand_ins)
            for name in MODULES:
                importlib.import_module(name)
        except Exception:  # another version can fail anywhere; the usual import follows
            _remove(stand_ins)
            for name in [name for name in sys.modules if name.partition(".")[0] == "transformers"]:
                del sys.modules[name]
    try:
        yield
    finally:
        _remove(stand_ins)


def _set_unavailable() -> None:
    """Let transformers remember that distributed tensors and scipy are not installed: it asks once in a process."""
    import torch
    from transformers.utils import import_utils

    for probe in (import_utils.is_torch_distributed_available, import_utils.is_scipy_available):
        probe.cache_clear()
    with mock.patch.object(torch.distributed, "is_available", return_value=False):
        import_utils.is_torch_distributed_available()
    with mock.patch.object(import_utils, "_is_package_available", return_value=(False, None)):
        import_utils.is_scipy_available()


def _stand_ins() -> dict[str, ModuleType]:
    """Modules in place of torch's compiler: with decorators that do nothing, because nothing is compiled, and with a
    mode that is imported when it is entered. For everything else, the compiler is imported."""
    dynamo: Any = ModuleType(DYNAMO)
    indexing: Any = ModuleType(INDEXING)
    stand_ins: dict[str, ModuleType] = {DYNAMO: dynamo, INDEXING: indexing}

    def compiler(name: str) -> Any:
        _remove(stand_ins)
        return getattr(importlib.import_module(DYNAMO), name)

    def index_mode() -> Any:
        _remove(stand_ins)
        return importlib.import_module(INDEXING).TransformGetItemToIndex()

    dynamo.allow_in_graph = dynamo.assume_constant_result = dynamo.disable = _undecorated
    dynamo.__getattr__ = compiler
    indexing.TransformGetItemToIndex = index_mode
    return stand_ins


def _undecorated(function: Callable[..., Any] | None = None, *_: object, **__: object) -> Callable[..., Any]:
    return function or _undecorated


def _remove(modules: Mapping[str, ModuleType]) -> None:
    for name, module in modules.items():
        if sys.modules.get(name) is module:
            del sys.modules[name]

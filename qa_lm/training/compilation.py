"""Compile the network for training with torch.compile: as a whole, or one block at a time.

A deep network is compiled block by block: its blocks have the same code, so that one compilation serves all of them. A
whole network of 30 blocks with LoRA takes minutes. Only training steps run compiled code: validation and answers have
other shapes, each of which would be compiled on its own.
"""

import time
from collections.abc import Callable
from typing import Any

import torch

from qa_lm.errors import first_line
from qa_lm.modeling.causal_lm import blocks, hidden_states
from qa_lm.modeling.module import CausalLMModule
from qa_lm.training.hardware import return_freed_memory

WHOLE_UP_TO = 12
"""Maximum number of blocks of a network that is compiled as a whole."""
SECONDS = 40.0
"""Seconds of a compilation without a cache. Measured: docs/log.md, "Compiled or not" and "fine-tuning, faster"."""
GAIN, GAIN_WITH_LORA = 0.2, 0.3
"""Share of a step's time that compiling saves, in general and with LoRA. Measured in the same tables."""


def compile_network(module: CausalLMModule) -> None:
    """Compile the body of the model for training; all batches must then have the same shape."""
    found = blocks(module.model)
    if len(found) <= WHOLE_UP_TO:
        module.hidden_states = torch.compile(hidden_states, dynamic=False)
        return
    for block in found:
        block.forward = _compiled_for_training(block.forward)


def undo_compilation(module: CausalLMModule) -> None:
    """Let training run the code of the model again."""
    module.hidden_states = hidden_states
    for block in blocks(module.model):
        vars(block).pop("forward", None)


def is_compiled(module: CausalLMModule) -> bool:
    """Whether training steps run compiled code."""
    return module.hidden_states is not hidden_states or any("forward" in vars(block) for block in blocks(module.model))


def pays_to_compile(module: CausalLMModule, seconds: float) -> bool:
    """Whether compiling saves more time than it takes.

    Args:
        module: the module to train.
        seconds: seconds of all training steps without compilation.
    """
    lora = any(not parameter.requires_grad for parameter in module.parameters())
    return (GAIN_WITH_LORA if lora else GAIN) * seconds > SECONDS


def try_compilation(module: CausalLMModule, step_seconds: Callable[[], float], eager: float) -> tuple[float, str]:
    """Compile the network, and undo it if it fails or does not help.

    Args:
        module: the module to train.
        step_seconds: measures the seconds of a training step.
        eager: seconds of a step without compilation.

    Returns:
        Seconds of a step, and whether the network is compiled and why, as text for the user.
    """
    return_freed_memory()  # compiled steps need less of it, in other pieces
    start = time.perf_counter()
    compile_network(module)
    try:
        seconds = step_seconds()
    except Exception as error:  # a missing or broken compiler can raise anything
        undo_compilation(module)
        return eager, f"off (it fails here: {first_line(error)})"
    took = time.perf_counter() - start
    if seconds > eager:
        undo_compilation(module)
        return eager, f"off (compiled steps take {seconds / eager:.2f} times as long)"
    return seconds, f"on (compiled in {took:.0f} s; steps take {seconds / eager:.2f} times as long)"


def _compiled_for_training(forward: Callable[..., Any]) -> Callable[..., Any]:
    """A forward method that is compiled where gradients are computed, also where a checkpoint computes it again."""
    compiled = torch.compile(forward, dynamic=False)

    def either(*arguments: Any, **options: Any) -> Any:
        return (compiled if torch.is_grad_enabled() else forward)(*arguments, **options)

    return either

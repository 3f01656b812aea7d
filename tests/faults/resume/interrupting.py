"""Runs that are interrupted at a chosen call."""

import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from qa_lm.config.schema import TrainConfig
from qa_lm.modeling.module import CausalLMModule
from qa_lm.training.checkpointing.interruption import Interrupted
from qa_lm.training.train import train


def interrupted(config: TrainConfig, folder: Path, method: str, call: int, number: int = signal.SIGTERM) -> Path:
    """Train until a signal arrives during the n-th call of a method of the module. Returns the folder."""
    original, calls = getattr(CausalLMModule, method), 0

    def interrupting(self: CausalLMModule, *arguments: Any, **named: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == call:
            signal.raise_signal(number)
        return original(self, *arguments, **named)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(CausalLMModule, method, interrupting)
        with pytest.raises((Interrupted, KeyboardInterrupt)):
            train(config, folder, handle_signals=True)
    assert not (folder / "metrics.json").exists()
    return folder


def broken_off(config: TrainConfig, folder: Path, step: int) -> None:
    """Train until the n-th training step raises an error, which saves nothing."""
    original, calls = CausalLMModule.training_step, 0

    def breaks(self: CausalLMModule, *arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == step:
            raise ZeroDivisionError
        return original(self, *arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(CausalLMModule, "training_step", breaks)
        with pytest.raises(ZeroDivisionError):
            train(config, folder)


def line_of(process: "subprocess.Popen[str]") -> str:
    """The next line that a process prints."""
    assert process.stdout
    return process.stdout.readline()

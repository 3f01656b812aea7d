"""Whether two runs ended the same, bit for bit."""

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from qa_lm.run import run_folder
from qa_lm.run.checkpoint import STATE, read_checkpoint
from qa_lm.run.run_folder import BEST, LAST

TEXTS = (run_folder.METRICS_BY_EPOCH, run_folder.ANSWERS, run_folder.BOARD, run_folder.SPLIT, run_folder.LEDGER_SUMMARY)
TIMES = ("seconds", "tokens_per_s", "memory", "resumed", "_path", "dirpath", "best_k_models")
"""What may differ: keys that hold one of these tell of the clock, of memory or of a folder."""


def first_difference(one: Path, other: Path) -> str | None:
    """The first thing in which two run folders differ, for people; None if there is none.

    Compared are the weights, the optimizer's and all callbacks' state in the last and the best checkpoint, metrics by
    epoch, answers, the board, and metrics.json but for its times.
    """
    for name in (LAST, BEST):
        paths = [folder / run_folder.CHECKPOINTS / name for folder in (one, other)]
        if not all(path.is_file() for path in paths):
            if any(path.is_file() for path in paths):
                return f"{name}: only one run has it"
            continue
        states = [read_checkpoint(path) for path in paths]
        if found := _difference(_comparable(states[0]), _comparable(states[1]), name):
            return found
    for name in TEXTS:
        texts = [_text(folder / name) for folder in (one, other)]
        if texts[0] != texts[1]:
            return _line(name, *texts)
    metrics = [json.loads(_text(folder / run_folder.METRICS) or "{}") for folder in (one, other)]
    return _difference(metrics[0], metrics[1], run_folder.METRICS)


def _comparable(checkpoint: dict[str, Any]) -> dict[str, Any]:
    """Without Lightning's own counters, whose totals count what was done again."""
    kept = {key: value for key, value in checkpoint.items() if key not in ("loops", STATE)}
    ours = checkpoint[STATE]
    return kept | {key: ours[key] for key in ("epoch", "batches", "should_stop", "processes")}


def _difference(one: Any, other: Any, where: str) -> str | None:
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        if one.dtype == other.dtype and torch.equal(_bits(one), _bits(other)):
            return None
        same_shape = one.shape == other.shape
        by = f", by up to {(one.double() - other.double()).abs().max():.3g}" if same_shape and one.numel() else ""
        return f"{where}: differs{by}"
    if isinstance(one, dict) and isinstance(other, dict):
        keys = [key for key in [*one, *(key for key in other if key not in one)] if not _may_differ(key)]
        for key in keys:
            if key not in one or key not in other:
                return f"{where}.{key}: only one run has it"
            if found := _difference(one[key], other[key], f"{where}.{key}"):
                return found
        return None
    if isinstance(one, list | tuple) and isinstance(other, list | tuple) and len(one) == len(other):
        pairs = enumerate(zip(one, other, strict=True))
        return next((found for i, (a, b) in pairs if (found := _difference(a, b, f"{where}[{i}]"))), None)
    equal = one == other or (one != one and other != other)
    return None if equal else f"{where}: {str(one)[:60]} and {str(other)[:60]}"


def _bits(tensor: Tensor) -> Tensor:
    """The bytes, so that nan equals itself and -0 is not 0."""
    return tensor.contiguous().reshape(-1).view(torch.uint8)


def _may_differ(key: Any) -> bool:
    return isinstance(key, str) and any(word in key for word in TIMES)


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8") if path.is_file() else ""


def _line(name: str, one: str, other: str) -> str:
    lines = one.splitlines(), other.splitlines()
    for number, (a, b) in enumerate(zip(*lines, strict=False), start=1):
        if a != b:
            return f"{name}, line {number}: {a[:80]!r} and {b[:80]!r}"
    return f"{name}: {len(lines[0])} lines and {len(lines[1])}"

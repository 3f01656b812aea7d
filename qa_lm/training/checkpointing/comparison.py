"""Comparison of two runs, bit for bit."""

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from qa_lm.run import run_folder
from qa_lm.run.checkpoint import STATE, read_checkpoint
from qa_lm.run.run_folder import BEST, LAST

TEXT_FILES = (
    run_folder.METRICS_BY_EPOCH,
    run_folder.ANSWERS,
    run_folder.BOARD,
    run_folder.SPLIT,
    run_folder.LEDGER_SUMMARY,
)
MAY_DIFFER = ("seconds", "tokens_per_s", "memory", "resumed", "_path", "dirpath", "best_k_models")
"""Parts of keys whose values may differ: times, memory and folders."""


def first_difference(one: Path, other: Path) -> str | None:
    """Describe the first difference between two run folders; None if they are equal.

    It compares the weights and the states of the optimizer and all callbacks in the last and the best checkpoint,
    metrics.csv, the answers, the results table, the split, the ledger's summary, and metrics.json except its times.
    """
    for name in (LAST, BEST):
        paths = [folder / run_folder.CHECKPOINTS / name for folder in (one, other)]
        if not all(path.is_file() for path in paths):
            if any(path.is_file() for path in paths):
                return f"{name}: only one run has it"
            continue
        states = [read_checkpoint(path) for path in paths]
        if difference := _difference(_comparable(states[0]), _comparable(states[1]), name):
            return difference
    for name in TEXT_FILES:
        texts = [_text(folder / name) for folder in (one, other)]
        if texts[0] != texts[1]:
            return _first_line_that_differs(name, *texts)
    metrics = [json.loads(_text(folder / run_folder.METRICS) or "{}") for folder in (one, other)]
    return _difference(metrics[0], metrics[1], run_folder.METRICS)


def _comparable(checkpoint: dict[str, Any]) -> dict[str, Any]:
    """The checkpoint without Lightning's own counters, whose totals include repeated batches."""
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
            if difference := _difference(one[key], other[key], f"{where}.{key}"):
                return difference
        return None
    if isinstance(one, list | tuple) and isinstance(other, list | tuple) and len(one) == len(other):
        pairs = enumerate(zip(one, other, strict=True))
        return next((text for i, (a, b) in pairs if (text := _difference(a, b, f"{where}[{i}]"))), None)
    equal = one == other or (one != one and other != other)
    return None if equal else f"{where}: {str(one)[:60]} and {str(other)[:60]}"


def _bits(tensor: Tensor) -> Tensor:
    """The bytes of a tensor, so that nan equals itself and -0 differs from 0."""
    return tensor.contiguous().reshape(-1).view(torch.uint8)


def _may_differ(key: Any) -> bool:
    return isinstance(key, str) and any(part in key for part in MAY_DIFFER)


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8") if path.is_file() else ""


def _first_line_that_differs(name: str, one: str, other: str) -> str:
    lines = one.splitlines(), other.splitlines()
    for number, (a, b) in enumerate(zip(*lines, strict=False), start=1):
        if a != b:
            return f"{name}, line {number}: {a[:80]!r} and {b[:80]!r}"
    return f"{name}: {len(lines[0])} lines and {len(lines[1])}"

"""Sweep folders by hand, without training, for the tests of the sweep's report."""

import json
import math
import random
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import yaml

from tests.reporting.report_example import CONFIG, METRICS

HEADER = "epoch,step,train_loss,val_loss,val_exact_match,train_recall\n"
OPTIMIZERS, RATES, SEEDS = ("adamw", "muon"), (0.001, 0.003, 0.01), (1, 2, 3)
SHARED = ["experiment=recall", "data.path=faq.jsonl"]


def job(
    sweep: Path,
    number: int | str,
    loss: float | None,
    seed: int = 1,
    overrides: Iterable[str] | None = None,
    epochs: int = 8,
    metrics: dict[str, Any] | None = None,
    **sections: Any,
) -> Path:
    """A finished job; a section of config.yaml is laid over the example's."""
    folder = sweep / str(number)
    folder.mkdir(parents=True)
    config: dict[str, Any] = {**CONFIG, "seed": seed}
    for section, values in sections.items():
        config[section] = {**config[section], **values} if isinstance(values, dict) else values
    (folder / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    (folder / "metrics.csv").write_text(curve(loss if loss is not None else 9.0, epochs))
    found = {**METRICS, "seed": seed, "best_val_loss": loss, "val_exact_match": 0.5, "epochs_run": epochs}
    found |= {"fit_seconds": 80.0 + number % 7 if isinstance(number, int) else 80.0, "final_train_recall": 0.97}
    (folder / "metrics.json").write_text(json.dumps(found | (metrics or {})))
    if overrides is not None:
        record = {"overrides": [*overrides], "state": "finished", "exit_code": 0, "seconds": 130.5}
        (folder / "job.json").write_text(json.dumps(record))
    return folder


def curve(end: float, epochs: int) -> str:
    """A metrics.csv whose validation loss falls from 8 to `end`."""
    lines = [HEADER]
    for epoch in range(1, epochs + 1):
        left = math.exp(-3.5 * epoch / epochs) if epoch < epochs else 0.0
        val = end + (8.0 - end) * left
        lines.append(f"{epoch},{8 * epoch},{val * 0.6:.4f},{val:.4f},{0.5 * (1 - left):.4f},{0.97 * (1 - left):.4f}\n")
    return "".join(lines)


def failed_job(sweep: Path, number: int | str, overrides: list[str] | None, error: str = "RuntimeError: boom") -> Path:
    """A job that ended at once: a log, and job.json where overrides are given."""
    folder = sweep / str(number)
    folder.mkdir(parents=True)
    (folder / "job.log").write_text(f"Traceback (most recent call last):\n  File ...\n{error}\n\n")
    if overrides is not None:
        record = {"overrides": overrides, "state": "failed", "exit_code": 1, "seconds": 2.5}
        (folder / "job.json").write_text(json.dumps(record))
    return folder


def planted(kind: str, rate: float) -> float:
    """The example's true loss: Muon better by 0.4, the middle rate better by 0.15."""
    return 2.0 + (0.4 if kind == "adamw" else 0.0) + 0.15 * abs(math.log10(rate / 0.003)) / math.log10(10 / 3)


def grid(
    root: Path,
    noise: float = 0.03,
    seeds: Iterable[int] = SEEDS,
    recorded: bool = True,
    mean: Callable[[str, float], float] = planted,
) -> Path:
    """Optimizer by learning rate by seed, with seed noise; `recorded` is whether the launcher left its job.json."""
    sweep, draw = root / "2026-11-25" / "05-00-00", random.Random(7)
    sweep.mkdir(parents=True)
    (sweep / "multirun.yaml").write_text("hydra: {}\n")
    number = 0
    for kind in OPTIMIZERS:
        for rate in RATES:
            for seed in seeds:
                given = [*SHARED, f"optimizer={kind}", f"optimizer.lr={rate}", f"seed={seed}"]
                job(
                    sweep,
                    number,
                    mean(kind, rate) + draw.gauss(0.0, noise),
                    seed,
                    given if recorded else None,
                    optimizer={"kind": kind, "lr": rate, "warmup_steps": 20 if kind == "muon" else 0},
                )
                number += 1
    return sweep

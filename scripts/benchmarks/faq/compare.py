"""Train on each file, from scratch or from a pretrained model, ask it, and print tables.

A file of your own needs the two files next to it that `benchmarks.faq` describes.
"""

import json
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.common import Runs, measured_by, our_run
from qa_lm.evaluation.metrics import share

HERE = Path(__file__).resolve().parent
FILES = [str(HERE / f"{name}.jsonl") for name in ("shop", "clinic", "software_ko", "hotel")]


def compare(files: list[str], seeds: int, encoder: str | None, model: str | None) -> Runs:
    """A run of each file and seed, one after the other.

    Args:
        files: files of pairs.
        seeds: number of seeds.
        encoder: a folder for `evaluation.encoder`; None for none.
        model: the folder of a pretrained model to start from; None trains from scratch.

    Raises:
        SystemExit: a file that belongs to one of `files` is missing.
    """
    for each in map(Path, files):
        for name in (f"{each.stem}_paraphrases.jsonl", f"{each.stem}_unrelated.txt"):
            if not each.with_name(name).is_file():
                sys.exit(f"faq needs {each.with_name(name)} next to {each.name}")
    return {Path(file).stem: [_run(file, seed, encoder, model) for seed in range(seeds)] for file in files}


def _run(file: str, seed: int, encoder: str | None, model: str | None) -> dict[str, Any]:
    recipe = ["experiment=finetune", "goal=recall", f"model.path={model}"] if model else ["experiment=recall"]
    overrides = [*recipe, f"data.path={file}", "data.train_fraction=1.0", f"seed={seed}"]
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        metrics = our_run(run, overrides + ([f"evaluation.encoder={encoder}"] if encoder else []))
        found = measured_by("faq.measure", str(run), file)
    seconds = metrics["measure_seconds"] + metrics["fit_seconds"]
    settings = {"file": Path(file).stem, "seed": seed, "encoder": bool(encoder), "pretrained": bool(model)}
    return settings | {"seconds": seconds} | found


def print_tables(sides: Runs) -> None:
    """Print each run as a line of JSON, then tables with medians of the seeds and the 95% interval of the share."""
    for run in (run for runs in sides.values() for run in runs):
        print(json.dumps(run, ensure_ascii=False))
    titles = dict.fromkeys(title for runs in sides.values() for title in runs[0]["counts"])
    for title in titles:
        _print_table(title, {name: _cells(runs, title) for name, runs in sides.items()})
    _print_table("runs", {name: _settings(runs) for name, runs in sides.items()})


def _print_table(title: str, columns: dict[str, dict[str, str]]) -> None:
    print(f"\n{title:<40}" + "".join(f"{name:>28}" for name in columns))
    for row in dict.fromkeys(row for cells in columns.values() for row in cells):
        print(f"{row:<40}" + "".join(f"{cells.get(row, ''):>28}" for cells in columns.values()))


def _cells(runs: list[dict[str, Any]], title: str) -> dict[str, str]:
    counts = [run["counts"][title] for run in runs]
    return {row: _median_share([each[row] for each in counts if row in each]) for row in counts[0]}


def _median_share(counts: list[list[int]]) -> str:
    """The median count of the seeds, with the 95% interval of its share."""
    right, n = (statistics.median_low(column) for column in zip(*counts, strict=True))
    found = share([1.0] * right + [0.0] * (n - right))
    return f"{right} of {n}" + (f" ({found.low:.0%} to {found.high:.0%})" if found else "")


def _settings(runs: list[dict[str, Any]]) -> dict[str, str]:
    thresholds = [run["threshold"] for run in runs if run["threshold"] is not None]
    return {
        "default mode": runs[0]["default_mode"],
        "threshold of the probability": f"{statistics.median(thresholds):.3f}" if thresholds else "none",
        "--precision": "refused" if any(run["no_threshold"] for run in runs) else "found",
        "seconds of training": f"{statistics.median(run['seconds'] for run in runs):.1f}",
    }

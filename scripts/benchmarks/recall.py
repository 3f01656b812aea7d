"""Time to recall: seconds of training until 99% of the trained pairs are answered exactly.

Ours is `experiment=recall` as it comes: its own measuring, compiling, validating, saving and stopping are counted, and
the answers are generated and compared at the end, all of them. Of TRL only the steps are counted, neither preparation
nor the looks at recall after each epoch. It gets its fastest setting with the best of several learning rates, batch
sizes and optimizers (`--rates`, `--batches`, `--optimizers`), each tried for a few epochs first, GPT-2's tokenizer, and
the model of the part `peers`. Its Trainer has no Muon among its optimizers, but takes one that is handed to it.
"""

import itertools
import json
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.common import SCRIPTS, Runs, child, gpt2_folder, our_run, pairs_file, shown
from benchmarks.peers import MODEL, precision_suffix, row_for

TRIAL_EPOCHS = 3
RECALL = 0.99
COLUMNS = {"seconds": "seconds", "recall": "recall", "epochs": "epochs", "expected, s": "expected_seconds"}


def compare(
    file: str,
    counts: list[int],
    rounds: int,
    python: str | None,
    limit: float,
    rates: list[float],
    batches: list[int],
    optimizers: list[str],
    variants: list[str],
) -> Runs:
    """Ours on each number of pairs, and TRL on the first count.

    Args:
        file: a file of pairs.
        counts: how many of them.
        rounds: how often ours runs; TRL, which takes minutes, runs once.
        python: the Python of an environment with the extra `bench`; None for ours alone.
        limit: seconds of steps after which TRL is stopped.
        rates: learning rates that are tried.
        batches: rows a step that are tried.
        optimizers: "adamw", "muon" or both.
        variants: settings, each of which changes the recipe of one more side of ours.
    """
    sides: Runs = {}
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        few = pairs_file(file, 50, work)
        for number in range(rounds):
            for count, (place, variant) in itertools.product(counts, enumerate(["", *variants])):
                pairs, run = pairs_file(file, count, work), work / f"ours-{count}-{number}-{place}"
                found = _ours(pairs, few, run, [f"seed={number}", *([variant] if variant else [])])
                sides.setdefault(f"ours, {count:,} pairs" + (f", {variant}" if variant else ""), []).append(found)
        if python:
            tried = list(itertools.product(optimizers, rates, batches))
            sides[f"TRL, {counts[0]:,} pairs"] = [_trl(pairs_file(file, counts[0], work), work, python, limit, tried)]
    return sides


def _ours(pairs: Path, few: Path, folder: Path, settings: list[str]) -> dict[str, Any]:
    overrides = [f"data.path={pairs}", f"data.validation_path={few}", "evaluation.max_pairs=100000"]
    metrics = our_run(folder, ["experiment=recall", *overrides, *settings])
    found = {
        "seconds": metrics["measure_seconds"] + metrics["fit_seconds"],
        "recall": metrics["recall"],
        "epochs": metrics["epochs_run"],
        "expected_seconds": metrics["expected_fit_seconds"],
        "fit_seconds": metrics["fit_seconds"],
        "peak_memory": metrics["peak_memory"],
    }
    return shown("ours", found)


def _trl(pairs: Path, work: Path, python: str, limit: float, tried: list[tuple[str, float, int]]) -> dict[str, Any]:
    base: dict[str, Any] = {
        "side": f"trl{precision_suffix()}-packing-compile",
        "pairs": str(pairs),
        "tokenizer": str(gpt2_folder(work)),
    }
    base |= {"model": MODEL, "row": row_for(pairs, work, 256), "recall": RECALL, "seconds": limit}

    def run(setting: tuple[str, float, int], epochs: int) -> dict[str, Any]:
        optimizer, lr, batch_size = setting
        settings = base | {"optimizer": optimizer, "lr": lr, "batch_size": batch_size, "epochs": epochs}
        return child([python, str(SCRIPTS / "benchmarks" / "trainers.py"), json.dumps(settings)])

    trials = {setting: run(setting, TRIAL_EPOCHS) for setting in tried} if len(tried) > 1 else {}
    best = min(trials, key=lambda setting: trials[setting]["history"][-1]["loss"]) if trials else tried[0]
    found = run(best, 60)
    return {
        "seconds": found["seconds"],
        "recall": found["history"][-1]["recall"],
        "epochs": len(found["history"]),
        "history": found["history"],
        "setting": best,
        "trials": {" ".join(map(str, setting)): trial["history"] for setting, trial in trials.items()},
        "peak_memory": found["peak_memory"],
    }

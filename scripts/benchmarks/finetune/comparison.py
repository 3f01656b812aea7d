"""Fine-tuning a pretrained model: recall and held-out exact match over time, of ours, TRL with peft, and LitGPT.

Ours is `experiment=finetune goal=recall` as it comes, once for each method. TRL runs with its own defaults, full and
LoRA, and with the fastest settings known for it: packed rows, bfloat16 where the machine multiplies it faster, and the
best of several learning rates, each tried for two epochs first. LitGPT runs with the defaults of its `finetune_full`
and `finetune_lora`. All start from the same folder, train the same pairs with the same plain prompt, and are asked by
teacher forcing. Only seconds of steps are counted, of the peers neither loading nor preparation nor the looks at
recall; of ours also the seconds of the whole of training.
"""

import csv
import itertools
import json
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.common import Runs, child, our_run, pairs_file, shown
from benchmarks.peers import precision_suffix
from qa_lm.run.run_folder import METRICS_BY_EPOCH

RECALL = 0.99
TRIAL_EPOCHS = 2
EPOCHS = 30
METHODS = ("full", "lora")
RATES = {"full": (5e-5, 1e-4), "lora": (5e-4, 1e-3)}
"""Learning rates that are tried with TRL."""
ROWS = (4,)
"""Packed rows a step that are tried with TRL."""
COLUMNS = {
    "recall, s": "recall_seconds",
    "all, s": "fit_seconds",
    "epochs": "epochs",
    "recall": "recall",
    "held out": "held_out",
    "tokens/s": "tokens_per_second",
    "peak, MiB": "peak_mib",
}


def compare(
    file: str, model: str, counts: tuple[int, int], rounds: int, python: str | None, litgpt: str | None, limit: float
) -> Runs:
    """Every side on the first pairs of a file, taking turns.

    Args:
        file: a file of pairs.
        model: the folder of a pretrained model.
        counts: how many pairs are trained, and how many of those after them are held out.
        rounds: how often ours runs; a peer runs once.
        python: the Python of an environment with the extra `bench` and peft; None for ours alone.
        litgpt: the Python of an environment with LitGPT; None leaves it out.
        limit: seconds of steps after which a peer is stopped.
    """
    sides: Runs = {}
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        train, held_out = parts(file, counts, work)
        base = {"model": model, "train": str(train), "held_out": str(held_out), "seconds": limit, "recall": RECALL}
        for number in range(rounds):
            for method in METHODS:
                found = _ours(work / f"{method}-{number}", base, method, number)
                sides.setdefault(f"ours, {method}", []).append(found)
        if python:
            for method in METHODS:
                sides[f"TRL defaults, {method}"] = [_peer(python, "trl_side", base | {"method": method})]
                sides[f"TRL best, {method}"] = [_best_trl(python, base | {"method": method})]
        if litgpt:
            for method in METHODS:
                sides[f"LitGPT defaults, {method}"] = [_peer(litgpt, "litgpt_side", base | {"method": method})]
    return sides


def parts(file: str, counts: tuple[int, int], work: Path) -> tuple[Path, Path]:
    """Files of the trained and of the held-out pairs."""
    lines = pairs_file(file, sum(counts), work).read_text(encoding="utf-8").splitlines(keepends=True)
    train, held_out = work / "train.jsonl", work / "held_out.jsonl"
    train.write_text("".join(lines[: counts[0]]), encoding="utf-8")
    held_out.write_text("".join(lines[counts[0] :]), encoding="utf-8")
    return train, held_out


def _ours(folder: Path, base: dict[str, Any], method: str, seed: int) -> dict[str, Any]:
    files = [f"data.path={base['train']}", f"data.validation_path={base['held_out']}", f"model.path={base['model']}"]
    settings = ["goal=recall", f"finetune={method}", f"seed={seed}", "evaluation.max_pairs=20"]
    metrics = our_run(folder, ["experiment=finetune", *files, *settings])
    with (folder / METRICS_BY_EPOCH).open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    history = [{"recall": float(row["train_recall"]), "held_out": float(row["val_exact_match"])} for row in rows]
    found = {
        "recall_seconds": metrics["train_seconds"],
        "fit_seconds": metrics["measure_seconds"] + metrics["fit_seconds"],
        "epochs": metrics["epochs_run"],
        "recall": metrics["final_train_recall"],
        "held_out": max(each["held_out"] for each in history),
        "history": history,
        "tokens_per_second": metrics["tokens_per_second"],
        "peak_mib": metrics["peak_memory"] / 2**20,
        "expected_seconds": metrics["expected_fit_seconds"],
        "expected_mib": (metrics["expected_memory"] or 0) / 2**20,
    }
    return shown("ours", found)


def _peer(python: str, module: str, settings: dict[str, Any]) -> dict[str, Any]:
    found = child([python, "-m", f"benchmarks.finetune.{module}", json.dumps(settings)])
    last = found["history"][-1]
    best = max(found["history"], key=lambda each: each["held_out"])
    return found | {
        "recall_seconds": found["seconds"],
        "epochs": len(found["history"]),
        "recall": last["recall"],
        "held_out": best["held_out"],
        "peak_mib": found["peak_memory"] / 2**20,
    }


def _best_trl(python: str, base: dict[str, Any]) -> dict[str, Any]:
    """TRL with the best of the learning rates and rows a step, by the loss of the last epoch that was tried."""
    base = base | {"fast": True, "bf16": bool(precision_suffix())}
    tried = {}
    for lr, rows in itertools.product(RATES[base["method"]], ROWS):
        setting = {"lr": lr, "rows": rows}
        tried[f"{lr:g} {rows}"] = _peer(python, "trl_side", base | setting | {"epochs": TRIAL_EPOCHS}) | setting
    best = max(tried.values(), key=lambda each: each["history"][-1]["recall"] / each["seconds"])
    setting = {"lr": best["lr"], "rows": best["rows"]}
    found = _peer(python, "trl_side", base | setting | {"epochs": EPOCHS})
    return found | {"setting": setting, "tried": {name: each["history"] for name, each in tried.items()}}

"""Measure, side by side in one run: `python scripts/benchmark.py tutorial|data`.

Each part prints a table and writes JSON (`--output`). The sides take turns, and medians are reported, because a machine
is never quite idle; quote the ratios.

tutorial: the default run against the loop by hand (scripts/tutorial_loop.py), seconds for ten epochs of GPT-2 small.
data: a file to the first batch of packed rows, the first time and from the store; with --peers PYTHON also by Hugging
    Face datasets and TRL; with --generated also the memory that files of 625,000 and 5 million pairs take.
"""

import argparse
import importlib.metadata
import json
import platform
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmark_data import compare, print_table

SCRIPTS = Path(__file__).resolve().parent


def main() -> int:
    """Run a part; print and write what came out."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=["tutorial", "data"], help="what to measure")
    parser.add_argument("--files", nargs="+", metavar="FILE", help="data: files of pairs")
    parser.add_argument("--row-tokens", type=int, default=256, help="data: length of a row (default 256)")
    parser.add_argument("--peers", metavar="PYTHON", help="data: the Python of an environment with trl and datasets")
    parser.add_argument("--generated", action="store_true", help="data: measure memory on generated files too")
    parser.add_argument("--rounds", type=int, default=3, help="times that each side runs (default 3)")
    parser.add_argument("--output", type=Path, help="a file for the JSON")
    options = parser.parse_args()
    if options.rounds < 1:
        parser.error("--rounds must be at least 1")
    if options.part == "data" and not options.files:
        parser.error("data needs --files")
    report: dict[str, Any] = {"machine": _machine(), "part": options.part}
    if options.part == "data":
        report["sides"] = compare(options.files, options.row_tokens, options.rounds, options.peers, options.generated)
        print_table(report["sides"])
    else:
        report["sides"] = _tutorial(options.rounds)
        _print_table(report["sides"])
    if options.output:
        options.output.write_text(json.dumps(report, indent=2) + "\n")
    return 0


def _tutorial(rounds: int) -> dict[str, dict[str, list[float]]]:
    """Seconds of training and validation, and of the whole command, for each side.

    Ours validates, saves best.ckpt and last.ckpt, exports and answers as well; the loop by hand does none of the last
    three.
    """
    variants = {
        "by hand": [],
        "ours (float32)": ["trainer.precision=32-true"],
        "ours (bf16-mixed)": ["trainer.precision=bf16-mixed"],
    }
    sides: dict[str, dict[str, list[float]]] = {name: {"train": [], "whole": [], "exact": []} for name in variants}
    for number in range(rounds):
        for name, overrides in variants.items():
            found = _loop_by_hand() if name == "by hand" else _our_run(overrides)
            for key, value in found.items():
                sides[name][key].append(value)
            print(f"round {number + 1}/{rounds}  {name}  {found}", file=sys.stderr, flush=True)
    return sides


def _loop_by_hand() -> dict[str, float]:
    command = [sys.executable, str(SCRIPTS / "tutorial_loop.py")]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return {"train": json.loads(printed)["seconds"], "whole": json.loads(printed)["seconds"]}


def _our_run(overrides: list[str]) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        command = [sys.executable, str(SCRIPTS / "train.py"), f"hydra.run.dir={run}", *overrides]
        subprocess.run(command, capture_output=True, text=True, check=True)
        metrics: dict[str, Any] = json.loads((run / "metrics.json").read_text())
    return {"train": metrics["train_seconds"], "whole": metrics["seconds"], "exact": metrics["recall"] * 8}


def _print_table(sides: dict[str, dict[str, list[float]]]) -> None:
    print(f"{'side':<20}{'training steps, s':>20}{'all, s':>10}{'ratio':>8}{'exact of 8':>12}")
    reference = statistics.median(sides["by hand"]["whole"])
    for name, values in sides.items():
        train, whole = statistics.median(values["train"]), statistics.median(values["whole"])
        exact = f"{statistics.median(values['exact']):.0f}" if values["exact"] else ""
        print(f"{name:<20}{train:>20.1f}{whole:>10.1f}{reference / whole:>8.2f}{exact:>12}")


def _machine() -> dict[str, Any]:
    packages = {name: importlib.metadata.version(name) for name in ("torch", "lightning", "transformers")}
    import torch

    capability = torch.backends.cpu.get_cpu_capability()
    return {"platform": platform.platform(), "threads": torch.get_num_threads(), "cpu": capability, **packages}


if __name__ == "__main__":
    sys.exit(main())

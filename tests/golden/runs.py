"""What fixed runs come to, to the last digit: a change of the code that is to change no result must leave it.

    OMP_NUM_THREADS=1 python -m tests.golden.runs [NAME ...]

runs them anew and writes the files beside this one. Do that only where a result is meant to change, and say why in the
commit message.
"""

import csv
import hashlib
import json
import platform
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

from tests.scripts_started import ROOT

FOLDER = Path(__file__).parent
SAME_EVERYWHERE = ("trainer.precision=32-true", "compile=false", "data.cache=off")
RUNS: dict[str, list[str]] = {
    "tutorial_tiny": ["model=tiny", "trainer.max_epochs=4", "optimizer.lr=1e-3"],
    "tutorial": [],
    "capitals_tiny": ["experiment=capitals", "trainer.max_epochs=2"],
    "recall_tutorial": ["experiment=recall", "data=tutorial"],
    "recall_capitals": ["experiment=recall", "data=capitals", "trainer.max_epochs=3"],
}
"""Command lines of scripts/train.py."""
SLOW = {"tutorial", "capitals_tiny", "recall_capitals"}


def command_line(name: str, folder: Path) -> list[str]:
    """The arguments of scripts/train.py for a run."""
    return [*RUNS[name], *SAME_EVERYWHERE, f"hydra.run.dir={folder}"]


def results(folder: Path) -> dict[str, Any]:
    """Losses by epoch, the board, the answers and the sha256 of the weights of a finished run."""
    with (folder / "metrics.csv").open(encoding="utf-8") as file:
        epochs = list(csv.DictReader(file))
    kept = ("train_loss", "val_loss", "val_exact_match", "train_recall")
    answers = [json.loads(line) for line in (folder / "answers.jsonl").read_text(encoding="utf-8").splitlines()]
    return {
        "machine": machine(),
        "weights": hashlib.sha256((folder / "model" / "model.safetensors").read_bytes()).hexdigest(),
        "epochs": [{key: float(row[key]) for key in kept if row.get(key)} for row in epochs],
        "board": json.loads((folder / "board.json").read_text(encoding="utf-8")),
        "answers": [[each["question"], each["generated"], each["exact_match"]] for each in answers[:50]],
    }


def machine() -> str:
    """What the last digits depend on: processor, its instructions, torch, threads."""
    capability = torch.backends.cpu.get_cpu_capability()
    mkldnn = "amx" if torch.cpu._is_amx_tile_supported() else ""
    return " ".join([platform.machine(), capability, mkldnn, torch.__version__, f"{torch.get_num_threads()} threads"])


def golden(name: str) -> dict[str, Any]:
    """What a run came to when it was recorded."""
    found: dict[str, Any] = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    return found


def main() -> None:
    """See above."""
    for name in sys.argv[1:] or RUNS:
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary) / "run"
            script = [sys.executable, str(ROOT / "scripts" / "train.py"), *command_line(name, folder)]
            subprocess.run(script, check=True)
            text = json.dumps(results(folder), indent=1, ensure_ascii=False)
        (FOLDER / f"{name}.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

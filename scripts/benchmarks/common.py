"""What the parts share: processes that print JSON, files for the peers, tables of medians."""

import importlib.metadata
import json
import os
import platform
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from qa_lm.run.run_folder import METRICS

SCRIPTS = Path(__file__).resolve().parent.parent
Runs = dict[str, list[dict[str, Any]]]
"""What each run of each side came to."""


def output(command: list[str], **how: Any) -> str:
    """What a process prints.

    Raises:
        SystemExit: it failed.
    """
    done = subprocess.run(command, capture_output=True, text=True, check=False, **how)
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)}\n{done.stderr[-4000:]}")
    return done.stdout


def child(command: list[str]) -> dict[str, Any]:
    """Run a process in `scripts/`, offline; its last line is the JSON of what it measured."""
    offline = os.environ | {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    return shown(Path(command[1]).name, json.loads(output(command, env=offline, cwd=SCRIPTS).splitlines()[-1]))


def measured_by(module: str, *arguments: str) -> dict[str, Any]:
    """What the `main` of one of these modules measures, in a process of its own."""
    return child([sys.executable, "-m", f"benchmarks.{module}", *arguments])


def our_run(folder: Path, overrides: list[str]) -> dict[str, Any]:
    """metrics.json of `scripts/train.py` with these overrides, run in a process of its own."""
    output([sys.executable, str(SCRIPTS / "train.py"), f"hydra.run.dir={folder}", *overrides])
    metrics: dict[str, Any] = json.loads((folder / METRICS).read_text())
    return metrics


def shown(name: str, found: dict[str, Any]) -> dict[str, Any]:
    """Print what was measured, as progress."""
    print(f"{name} {found}", file=sys.stderr, flush=True)
    return found


def gpt2_folder(work: Path) -> Path:
    """GPT-2's tokenizer as a folder that transformers loads."""
    from qa_lm.data.tokenizer import gpt2_tokenizer

    folder = work / "gpt2"
    if not folder.exists():
        folder.mkdir()
        gpt2_tokenizer().save(folder, 1024)
    return folder


def pairs_file(path: str, count: int | None, work: Path) -> Path:
    """The first pairs of a file, as JSONL of question and answer alone; each side reads the same."""
    from qa_lm.data.readers.reading import PairReader, Reading, file_sources

    target = work / f"{Path(path).name.split('.')[0]}-{count or 'all'}.jsonl"
    if not target.exists():
        with target.open("w", encoding="utf-8") as file:
            for number, (_, _, pair) in enumerate(PairReader(file_sources(path, "--files"), Reading()).pairs()):
                if number == count:
                    break
                file.write(json.dumps({"question": pair.question, "answer": pair.answer}, ensure_ascii=False) + "\n")
    return target


def print_medians(sides: Runs, columns: dict[str, str]) -> None:
    """A line per side: the median of each column (its heading, the key of the runs)."""
    width = max(map(len, sides))
    print(f"{'side':<{width}}" + "".join(f"{name:>18}" for name in columns))
    for name, runs in sides.items():
        cells = []
        for key in columns.values():
            values = [run[key] for run in runs if isinstance(run.get(key), int | float)]
            cells.append(f"{statistics.median(values):>18,.4g}" if values else f"{'':>18}")
        print(f"{name:<{width}}" + "".join(cells))


def machine() -> dict[str, Any]:
    """What a measurement ran on."""
    import torch

    packages = {name: importlib.metadata.version(name) for name in ("torch", "lightning", "transformers")}
    gpus = [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
    capability = torch.backends.cpu.get_cpu_capability()
    threads = torch.get_num_threads()
    return {"platform": platform.platform(), "threads": threads, "cpu": capability, "gpus": gpus, **packages}

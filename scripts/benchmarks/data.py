"""From a file to the first batch, for `benchmark.py data`: seconds, peak memory, fill of rows.

usage of the measured process, in scripts/: python -m benchmarks.data PATHS ROW_TOKENS CACHE   (PATHS is JSON)
"""

import contextlib
import json
import os
import random
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import psutil

from benchmarks.common import Runs, child, gpt2_folder, measured_by

GENERATED = (625_000, 5_000_000)
"""Pairs of generated data, whose memory is compared."""
PART = 5_000_000
"""Pairs of a generated file."""
EPOCHS = 3
COLUMNS = {
    "first batch, s": "seconds",
    "peak, MiB": "peak_mib",
    "above imports": "above_imports_mib",
    "with readers": "with_readers_mib",
    "fill": "fill",
    "rows": "rows",
    "next epoch, s": "next_epoch_seconds",
    "batch, ms": "batch_ms",
}


def compare(paths: list[str], row_tokens: int, rounds: int, peers: str | None, generated: list[int]) -> Runs:
    """All sides, taking turns: ours the first time, ours from the store, the peer.

    Args:
        paths: files of pairs; may be empty.
        row_tokens: length of a row.
        rounds: how often each side runs on these files.
        peers: the Python of an environment with trl and datasets; None to leave the peer out.
        generated: numbers of pairs; as many are generated, prepared and removed, one number after the other.
    """
    sides: Runs = {}
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        for number in range(rounds if paths else 0):
            for name in ("ours, first time", "ours, from the store"):
                sides.setdefault(name, []).append(_ours(paths, row_tokens, work / str(number)))
            if peers:
                script = str(Path(__file__).with_name("trl_packing.py"))
                for path in paths:
                    found = child([peers, script, path, str(gpt2_folder(work)), str(row_tokens)])
                    sides.setdefault(f"datasets + TRL, {Path(path).name}", []).append(found)
        for count in generated:
            with tempfile.TemporaryDirectory(dir=work) as place:
                files = _generate(Path(place), count)
                sides[f"ours, {count:,} generated"] = [_ours(files, row_tokens, Path(place) / "cache")]
    return sides


def _ours(paths: list[str], row_tokens: int, cache: Path) -> dict[str, Any]:
    return measured_by("data", json.dumps(paths), str(row_tokens), str(cache))


def _generate(folder: Path, count: int) -> list[str]:
    paths, dice = [], random.Random(0)
    for begin in range(0, count, PART):
        path = folder / f"{begin:010}.jsonl"
        with path.open("w") as file:
            for number in range(begin, min(begin + PART, count)):
                answer = f"The code is {dice.randrange(10**6)}."
                file.write(f'{{"question": "What is the code of item {number}?", "answer": "{answer}"}}\n')
        paths.append(str(path))
    return paths


class _PeakMemory(threading.Thread):
    """The most memory of this process that no file backs, in MiB: pages of the store can be dropped at any time."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.peak = self.peak_with_children = 0
        self.ended = threading.Event()

    def run(self) -> None:
        """Look every 20 ms, and at the processes that read files every second."""
        looks = 0
        while not self.ended.wait(0.02):
            own = memory("RssAnon")
            self.peak = max(self.peak, own)
            if looks % 50 == 0:
                children = [str(child.pid) for child in psutil.Process().children()]
                self.peak_with_children = max(
                    self.peak_with_children, own + sum(memory("RssAnon", c) for c in children)
                )
            looks += 1


def memory(name: str, process: str = "self") -> int:
    """A figure of /proc/PROCESS/status in MiB; 0 if the process has ended."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{process}/status").read_text(encoding="utf-8").splitlines():
            if line.startswith(f"{name}:"):
                return int(line.split()[1]) // 1024
    return 0


def _measure(paths: list[str], row_tokens: int, cache: str) -> dict[str, Any]:
    """What training does before its first step, imports apart, and what it does between epochs."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    import qa_lm.training.train  # noqa: F401  # all that training imports
    from qa_lm.config.schema import DataConfig, TokenizerConfig
    from qa_lm.data.batches.batching import PackedRows
    from qa_lm.data.batches.datamodule import PairsDataModule
    from qa_lm.data.prepare import prepare

    before = memory("RssAnon")
    watch = _PeakMemory()
    watch.start()
    start = time.perf_counter()
    data = DataConfig(path=paths, cache=cache, packing=True, row_tokens=row_tokens)
    prepared = prepare(data, TokenizerConfig("gpt2"), row_tokens)
    prepare_seconds = time.perf_counter() - start
    module = PairsDataModule(prepared.examples, prepared.split, 8, True, 0, True, row_tokens)
    batches = iter(module.train_dataloader())
    next(batches)
    seconds = time.perf_counter() - start
    rows = module.train_rows
    assert isinstance(rows, PackedRows)

    start, count = time.perf_counter(), 0
    for _ in zip(batches, range(500), strict=False):
        count += 1
    batch_ms = (time.perf_counter() - start) / max(count, 1) * 1000
    start = time.perf_counter()
    for epoch in range(1, 1 + EPOCHS):
        rows.set_epoch(epoch)
        next(iter(rows))
    next_epoch = (time.perf_counter() - start) / EPOCHS
    watch.ended.set()
    return {
        "seconds": seconds,
        "pairs": len(prepared.table),
        "peak_mib": memory("VmHWM"),
        "peak_anonymous_mib": watch.peak,
        "above_imports_mib": watch.peak - before,
        "with_readers_mib": max(watch.peak, watch.peak_with_children) - before,
        "prepare_seconds": prepare_seconds,
        "rows": len(rows),
        "fill": rows.fill,
        "batch_ms": batch_ms,
        "next_epoch_seconds": next_epoch,
    }


if __name__ == "__main__":
    print(json.dumps(_measure(json.loads(sys.argv[1]), int(sys.argv[2]), sys.argv[3])))

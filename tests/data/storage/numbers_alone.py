"""Memory of everything between the encoding and the batches, without texts: what takes seconds for millions of pairs.

usage: python -m tests.data.storage.numbers_alone FOLDER SCALE PAIRS ...   (prints the peak for each as JSON, in MiB)

SCALE divides the sizes from which arrays are in files and work is cut into blocks.
"""

import json
import sys
import threading
from pathlib import Path

import numpy as np

from qa_lm.data import keys
from qa_lm.data.batches import batching, packing
from qa_lm.data.batches.batching import PackedRows, PaddedRows
from qa_lm.data.batches.store import FILES, EncodedPairs
from qa_lm.data.quality.checks import describe
from qa_lm.data.quality.limits import within_limit
from qa_lm.data.splits.registry import PairsToSplit, drawn_split
from qa_lm.data.storage import arrays
from qa_lm.data.table import COLUMNS, PairTable


def made(folder: Path, count: int) -> tuple[PairTable, EncodedPairs]:
    """The files of a table and a store with random numbers; all questions differ."""
    folder.mkdir()
    dice = np.random.default_rng(0)
    files = {name: (folder / f"{name}.bin").open("wb") for name in COLUMNS} | {
        name: (folder / name).open("wb") for name in FILES
    }
    end = 0
    for begin in range(0, count, 1 << 16):
        here = min(1 << 16, count - begin)
        lengths = dice.integers(8, 60, here)
        ends = end + np.cumsum(lengths + 1)
        end = int(ends[-1])
        for name, kind in COLUMNS.items():
            numbers = dice.integers(1, 2**63, here) if name.endswith("_key") else dice.integers(1, 9, here)
            numbers *= name not in ("source", "group_key", "other_answers")
            files[name].write(numbers.astype(kind).tobytes())
        stored: tuple[np.ndarray, ...] = (
            np.ones(int((lengths + 1).sum()), np.uint16),
            ends,
            lengths.astype(np.int32),
            lengths // 2,
        )
        for name, column, width in zip(FILES, stored, ("uint16", "int64", "int32", "int32"), strict=True):
            files[name].write(column.astype(width).tobytes())
    for file in files.values():
        file.close()
    (folder / "meta.json").write_text(json.dumps({"count": count, "fingerprint": "", "dtype": "uint16"}))
    return PairTable(folder, ["pairs"]), EncodedPairs(folder, 2**31 - 1)


def used(table: PairTable, examples: EncodedPairs) -> None:
    """Split, check and describe the pairs, and draw the first rows of two epochs."""
    places = arrays.numbered(len(table))
    pairs = PairsToSplit(table, places, 1, lambda: places)
    split = drawn_split("question", pairs, 42, 0.8)
    split, long = within_limit(split, examples, 59, table, "drop", "model.context")
    found = {"columns": {}, "unanswerable": 0, "bad_lines": {"count": 0}, "warnings": []}
    describe(table, split, examples, 1, found, long)
    lengths = examples.lengths(split.train)
    packed = PackedRows(split.train, lengths, True, 0, 8, 256)
    padded = PaddedRows(split.train, lengths, True, 0, 8)
    for rows in (packed, padded):
        for epoch in (0, 1):
            rows.set_epoch(epoch)
            next(iter(rows))


def anonymous() -> float:
    """Memory of this process that no file backs, in MiB; the system can drop the other pages at any time."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(status.partition("RssAnon:")[2].split()[0]) / 1024


def main() -> None:
    """Print the peaks."""
    folder, scale, peaks = Path(sys.argv[1]), int(sys.argv[2]), []
    arrays.keep_in(folder)
    for module, name in (
        (arrays, "IN_MEMORY"),
        (arrays, "BLOCK"),
        (batching, "BLOCK"),
        (packing, "PART"),
        (keys, "SLICE"),
    ):
        setattr(module, name, getattr(module, name) // scale)
    for number, count in enumerate(map(int, sys.argv[3:])):
        table, examples = made(folder / str(number), count)
        ended, seen = threading.Event(), [anonymous()]

        def watch(ended: threading.Event = ended, seen: list[float] = seen) -> None:
            while not ended.wait(0.002):
                seen.append(anonymous())

        watcher = threading.Thread(target=watch)
        watcher.start()
        used(table, examples)
        ended.set()
        watcher.join()
        peaks.append(max(seen))
    print(json.dumps(peaks))


if __name__ == "__main__":
    main()

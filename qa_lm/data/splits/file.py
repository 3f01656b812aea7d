"""Write split.csv, the split of each pair of a run with its file and line."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv

from qa_lm.data.splits.draw import KINDS, Split
from qa_lm.data.table import PairTable
from qa_lm.run.atomic import replacing

SIDES = ("not used", "train", "validation", "test")


def write_split(path: Path, table: PairTable, split: Split) -> None:
    """Write one line per pair, in the order of the files: file, line, split, held_out. The write is atomic.

    Args:
        path: the file to write.
        table: all pairs.
        split: indices per split; a pair in none was too long, or exceeds `data.train_pairs`.
    """
    side, reason = np.zeros(len(table), np.int8), np.zeros(len(table), np.int8)
    for number, places in enumerate(split[:3], start=1):
        side[places] = number
    reason[split.validation] = split.held_out
    columns = {
        "file": pa.DictionaryArray.from_arrays(table.numbers("source"), table.sources).cast(pa.string()),
        "line": pa.array(table.numbers("line")),
        "split": pa.DictionaryArray.from_arrays(side, list(SIDES)).cast(pa.string()),
        "held_out": pa.DictionaryArray.from_arrays(reason, list(KINDS)).cast(pa.string()),
    }
    with replacing(path) as temporary:
        pa.csv.write_csv(pa.table(columns), temporary)

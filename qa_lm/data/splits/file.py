"""Write split.csv, the split of each pair of a run with its file and line."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv

from qa_lm.data.splits.draw import KINDS, Split, side_of_pairs
from qa_lm.data.storage.arrays import blocks, zeros
from qa_lm.data.table import PairTable
from qa_lm.run.atomic import replacing

SIDES = ("not used", "train", "validation", "test")
SCHEMA = pa.schema({"file": pa.string(), "line": pa.int64(), "split": pa.string(), "held_out": pa.string()})


def write_split(path: Path, table: PairTable, split: Split) -> None:
    """Write one line per pair, in the order of the files: file, line, split, held_out. The write is atomic.

    Args:
        path: the file to write.
        table: all pairs.
        split: indices per split; a pair in none was too long, or exceeds `data.train_pairs`.
    """
    side, reason = side_of_pairs(split, len(table)), zeros(len(table), np.int8)
    for block in blocks(len(split.validation)):
        reason[split.validation[block]] = split.held_out[block]
    columns = (table.numbers("source"), table.numbers("line"), side, reason)
    # A path would stay open with the writer, and Windows renames no open file.
    with replacing(path) as temporary, temporary.open("wb") as file, pa.csv.CSVWriter(file, SCHEMA) as writer:
        for block in blocks(len(table)):
            source, line, sides, reasons = (column[block] for column in columns)
            arrays = [
                pa.DictionaryArray.from_arrays(source, table.sources).cast(pa.string()),
                pa.array(line),
                pa.DictionaryArray.from_arrays(sides, list(SIDES)).cast(pa.string()),
                pa.DictionaryArray.from_arrays(reasons, list(KINDS)).cast(pa.string()),
            ]
            writer.write_batch(pa.record_batch(arrays, schema=SCHEMA))

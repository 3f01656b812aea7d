"""The pairs of one file on disk, as a reading process leaves them for the table of all files."""

from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pyarrow as pa

from qa_lm.data.table import COLUMNS, SCHEMA, Chunk

TEXTS, ROWS, ENDS = "texts.arrow", "rows.json", "ends.bin"


def write_piece(folder: Path, chunks: Iterable[Chunk]) -> None:
    """Write chunks into an empty folder."""
    with ExitStack() as files:
        writer = files.enter_context(pa.ipc.new_file(str(folder / TEXTS), SCHEMA))
        rows, ends = (files.enter_context((folder / name).open("wb")) for name in (ROWS, ENDS))
        columns = [files.enter_context((folder / f"{name}.bin").open("wb")) for name in COLUMNS]
        for chunk in chunks:
            writer.write_batch(chunk.texts)
            rows.write(chunk.rows)
            ends.write(chunk.ends.astype(np.int64).tobytes())
            for file, column in zip(columns, chunk.numbers, strict=True):
                file.write(column.tobytes())


def read_piece(folder: Path, source: int) -> Iterator[Chunk]:
    """Read the chunks that `write_piece` wrote.

    Args:
        folder: the folder.
        source: index of the file among all, which the writing process does not know.
    """
    with ExitStack() as files:
        reader = pa.ipc.open_file(files.enter_context(pa.OSFile(str(folder / TEXTS), "rb")))
        rows, ends = (files.enter_context((folder / name).open("rb")) for name in (ROWS, ENDS))
        columns = [files.enter_context((folder / f"{name}.bin").open("rb")) for name in COLUMNS]
        for number in range(reader.num_record_batches):
            texts = reader.get_batch(number)
            numbers = [
                np.frombuffer(file.read(texts.num_rows * np.dtype(kind).itemsize), kind)
                for file, kind in zip(columns, COLUMNS.values(), strict=True)
            ]
            numbers[0] = np.full(texts.num_rows, source, COLUMNS["source"])
            here = np.frombuffer(ends.read(texts.num_rows * 8), np.int64)
            yield Chunk(texts, numbers, rows.read(int(here[-1])), here)

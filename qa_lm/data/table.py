"""All pairs of a run on disk: the texts in an Arrow file, and numbers about them in memory-mapped columns.

The numbers include 64-bit keys, so that repeats, contradictions and splits are found by sorting. The texts are never
all in memory.
"""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from functools import cached_property
from itertools import islice
from json.encoder import encode_basestring_ascii
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from qa_lm.data.cache import read_meta
from qa_lm.data.pairs import Pair, normalise_question, text_key

TEXTS = "pairs.arrow"
BATCH = 4096
"""Number of pairs per record batch, which is read at once."""
SCHEMA = pa.schema(
    {"question": pa.string(), "answer": pa.string(), "other_answers": pa.list_(pa.string()), "group": pa.string()}
)
COLUMNS = {
    "source": np.int32,
    "line": np.int64,
    "question_key": np.uint64,
    "normalised_key": np.uint64,
    "answer_key": np.uint64,
    "group_key": np.uint64,
    "question_characters": np.int32,
    "answer_characters": np.int32,
    "other_answers": np.int32,
}
"""Columns of numbers with their dtypes; each is a separate file of raw numbers."""


class Chunk(NamedTuple):
    """Pairs in the form in which they are written."""

    texts: pa.RecordBatch
    numbers: list[np.ndarray]
    """The columns of `COLUMNS`."""
    rows: bytes | memoryview
    """Each pair as JSON, followed by a comma and a space; the fingerprint is computed from it."""
    ends: np.ndarray
    """Where each pair ends in `rows`, int64."""

    def __len__(self) -> int:
        return len(self.ends)

    def cut(self, begin: int, end: int) -> "Chunk":
        """The pairs from place `begin` to place `end`, at least one."""
        first = int(self.ends[begin - 1]) if begin else 0
        return Chunk(
            self.texts.slice(begin, end - begin),
            [column[begin:end] for column in self.numbers],
            self.rows[first : int(self.ends[end - 1])],
            self.ends[begin:end] - first,
        )


def chunks_of(pairs: Iterable[tuple[int, int, Pair]]) -> Iterator[Chunk]:
    """Chunks of `BATCH` pairs and a last one with the rest.

    Args:
        pairs: (index of the source, line, pair).
    """
    each = iter(pairs)
    while part := list(islice(each, BATCH)):
        texts = [pair for _, _, pair in part]
        numbers = zip(*((source, line, *_numbers(pair)) for source, line, pair in part), strict=True)
        rows = [_as_json(pair) for pair in texts]
        arrays = [pa.array(column, field.type) for column, field in zip(zip(*texts, strict=True), SCHEMA, strict=True)]
        yield Chunk(
            pa.record_batch(arrays, schema=SCHEMA),
            [np.array(column, kind) for column, kind in zip(numbers, COLUMNS.values(), strict=True)],
            "".join(rows).encode(),
            np.cumsum([len(row) for row in rows]),
        )


def write_table(folder: Path, chunks: Iterable[Chunk]) -> dict[str, Any]:
    """Write pairs in batches of `BATCH`, whatever the sizes of the chunks.

    Args:
        folder: folder for the files.
        chunks: the pairs.

    Returns:
        count: number of pairs; fingerprint: sha256 of the texts in order.
    """
    digest, count = hashlib.sha256(), 0
    with ExitStack() as files:
        texts = files.enter_context(pa.OSFile(str(folder / TEXTS), "wb"))
        writer = files.enter_context(pa.ipc.new_file(texts, SCHEMA))
        columns = [files.enter_context((folder / f"{name}.bin").open("wb")) for name in COLUMNS]
        for parts in _batches(chunks):
            json_rows = b"".join(part.rows for part in parts)
            digest.update(b"[" + json_rows[:-2] + b"]")
            writer.write_batch(_joined([part.texts for part in parts]))
            for part in parts:
                for file, column in zip(columns, part.numbers, strict=True):
                    file.write(column.tobytes())
            count += sum(map(len, parts))
    return {"count": count, "fingerprint": digest.hexdigest()}


def _batches(chunks: Iterable[Chunk]) -> Iterator[list[Chunk]]:
    """Cut and gather chunks so that each list has `BATCH` pairs together, and the last one the rest."""
    parts: list[Chunk] = []
    free = BATCH
    for chunk in chunks:
        begin = 0
        while begin < len(chunk):
            end = min(len(chunk), begin + free)
            parts.append(chunk if (begin, end) == (0, len(chunk)) else chunk.cut(begin, end))
            free -= end - begin
            begin = end
            if not free:
                yield parts
                parts, free = [], BATCH
    if parts:
        yield parts


def _joined(batches: list[pa.RecordBatch]) -> pa.RecordBatch:
    return batches[0] if len(batches) == 1 else pa.Table.from_batches(batches).combine_chunks().to_batches()[0]


def _as_json(pair: Pair) -> str:
    """What `json.dumps(pair)` returns, with a comma and a space after it; five times as fast."""
    group = "null" if pair.group is None else encode_basestring_ascii(pair.group)
    others = ", ".join(map(encode_basestring_ascii, pair.other_answers))
    return f"[{encode_basestring_ascii(pair.question)}, {encode_basestring_ascii(pair.answer)}, [{others}], {group}], "


def _numbers(pair: Pair) -> tuple[int, ...]:
    return (
        text_key(pair.question),
        text_key(normalise_question(pair.question)),
        text_key(pair.answer),
        0 if pair.group is None else text_key(pair.group),
        len(pair.question),
        len(pair.answer),
        len(pair.other_answers),
    )


class PairTable:
    """The pairs of a folder that `write_table` filled.

    Args:
        folder: the folder.
        sources: names of the sources; the column `source` contains their indices.
    """

    def __init__(self, folder: Path, sources: Sequence[str]) -> None:
        self.folder, self.sources = folder, list(sources)
        meta = read_meta(folder)
        self.count: int = meta["count"]
        self.fingerprint: str = meta["fingerprint"]
        self.dialogues: bool = meta.get("dialogues", False)
        """Whether pairs of one line are turns of one dialogue."""

    def __reduce__(self) -> tuple[Any, ...]:
        """Let a worker process open the files again."""
        return PairTable, (self.folder, self.sources)

    def __len__(self) -> int:
        return self.count

    def numbers(self, column: str) -> np.ndarray:
        """A memory-mapped column of numbers, (pairs,)."""
        if not self.count:  # an empty file cannot be mapped
            return np.zeros(0, COLUMNS[column])
        return np.memmap(self.folder / f"{column}.bin", COLUMNS[column], "r")

    def pairs(self, indices: Sequence[int] | np.ndarray) -> list[Pair]:
        """The pairs at these indices, in this order."""
        pairs: dict[int, Pair] = {}
        for index in sorted(map(int, indices)):
            number, row = divmod(index, BATCH)
            pairs[index] = _pair(*(column[row].as_py() for column in self._mapped.get_batch(number).columns))
        return [pairs[int(index)] for index in indices]

    def questions(self, indices: np.ndarray) -> list[str]:
        """The questions at these indices, in this order; faster than `pairs`."""
        questions = [""] * len(indices)
        numbers, rows = np.divmod(indices, BATCH)
        for number in np.unique(numbers).tolist():
            places = np.flatnonzero(numbers == number)
            found = self._mapped.get_batch(number).column(0).take(pa.array(rows[places])).to_pylist()
            for place, question in zip(places.tolist(), found, strict=True):
                questions[place] = question
        return questions

    def batches(self) -> Iterator[list[Pair]]:
        """Iterate over all pairs in order, batch by batch, without keeping them in memory."""
        with pa.OSFile(str(self.folder / TEXTS), "rb") as file:
            reader = pa.ipc.open_file(file)
            for number in range(reader.num_record_batches):
                columns = (column.to_pylist() for column in reader.get_batch(number).columns)
                yield [_pair(*row) for row in zip(*columns, strict=True)]

    def texts(self, indices: np.ndarray) -> Iterator[Pair]:
        """Iterate over the pairs at these ascending indices, with one batch in memory at a time."""
        for number, batch in enumerate(self.batches()):
            bounds = np.array([number * BATCH, (number + 1) * BATCH], indices.dtype)  # another type copies the indices
            begin, end = np.searchsorted(indices, bounds)
            for index in indices[begin:end] - number * BATCH:
                yield batch[index]

    def place(self, index: int) -> str:
        """The place of a pair, as `file:line`."""
        return f"{self.sources[self.numbers('source')[index]]}:{self.numbers('line')[index]}"

    @cached_property
    def _mapped(self) -> Any:
        return pa.ipc.open_file(pa.memory_map(str(self.folder / TEXTS)))


def _pair(question: str, answer: str, other_answers: list[str], group: str | None) -> Pair:
    return Pair(question, answer, tuple(other_answers), group)

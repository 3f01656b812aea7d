"""Read pairs with their places from files of any format."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from qa_lm.data.pairs import BUILTIN, Pair
from qa_lm.data.readers.files import check_encoding, data_suffix, find_files
from qa_lm.data.readers.formats import BUILT_IN, READERS, ReadOptions, read_records
from qa_lm.data.readers.problems import BadLine, Found, Problems, Record, Remarks
from qa_lm.data.readers.written_lists import with_lists, written_list
from qa_lm.data.records.columns import Columns, Unanswerable, Wanted, choose_columns, pairs_from
from qa_lm.data.records.dialogues import find_turns
from qa_lm.data.records.unread import SeenColumns, missed_in_words
from qa_lm.errors import UserError

LIST_AS_TEXT = "answers that are lists written as text; they are trained with their brackets"
RULES = 2
"""Version of the reading rules; increased when a file is read as other pairs, so that cached pairs are not used."""


@dataclass(frozen=True)
class Reading(Wanted):
    """How files are read, and which columns."""

    header: tuple[str, ...] | None = None
    """Columns of CSV, TSV and Excel files without a header line."""
    encoding: str = "utf-8"
    skip_bad_lines: bool = False
    """Whether bad lines are skipped and counted, instead of raising an error."""

    def columns_of(self, record: Record) -> Columns:
        """Choose the columns of a source from its first record.

        Raises:
            ValueError: see `choose_columns`.
        """
        turns = find_turns(record, self.columns.question, self.columns.answer)
        if turns and not turns.is_certain:
            try:
                return choose_columns(record, self)
            except ValueError:
                pass  # only the dialogue is left
        return choose_columns(record, self, turns)


@dataclass(frozen=True)
class Source:
    """A file of pairs, or a data set of the hub."""

    name: str
    """Display name: the file name as the user gave it."""
    path: Path | None = None
    subset: str | None = None
    split: str = "train"

    def records(self, reading: Reading, remarks: Remarks) -> Iterator[Found]:
        """Iterate over records and bad lines, in order; `remarks` receives notes on how they were read."""
        if self.path is None:
            from qa_lm.data.readers.arrow import read_hub  # pyarrow takes a quarter of a second

            return read_hub(self.name, self.subset, self.split)
        return read_records(self.path, ReadOptions(reading.encoding, reading.header, remarks))

    @property
    def suffix(self) -> str:
        """The suffix of the file's format; empty for a data set of the hub."""
        return data_suffix(self.path) if self.path else ""

    @property
    def has_fixed_columns(self) -> bool:
        """Whether all records have the same columns, so that columns missing in one record are missing in all."""
        return self.suffix in ("", ".csv", ".tsv", ".xlsx", ".parquet")

    @property
    def may_lack_header(self) -> bool:
        """Whether this is a CSV or TSV file, or an Excel workbook."""
        return self.suffix in (".csv", ".tsv", ".xlsx")

    @property
    def is_cacheable(self) -> bool:
        """Whether the bytes of the file determine its pairs: not for a registered reader, whose result depends on its
        code, nor for the hub, whose library has its own cache."""
        return self.suffix in BUILT_IN

    def content_key(self) -> str | None:
        """sha256 of the file's bytes; None for a data set of the hub.

        Raises:
            UserError: the file cannot be read.
        """
        if self.path is None:
            return None
        try:
            with self.path.open("rb") as file:
                return hashlib.file_digest(file, lambda: hashlib.sha256(self.suffix.encode())).hexdigest()
        except OSError as error:
            raise UserError(f"{self.path}: cannot be read: {error.strerror or error}") from None


def file_sources(patterns: str | Sequence[str], setting: str) -> list[Source]:
    """The sources of file names and globs.

    Raises:
        UserError: see `find_files`.
    """
    names = {file: name for name, file in BUILTIN.items()}
    return [Source(names.get(path, str(path)), path) for path in find_files(patterns, tuple(READERS), setting)]


@dataclass
class PairReader:
    """Reads sources one after the other; its attributes are filled while `pairs` is iterated."""

    sources: Sequence[Source]
    reading: Reading
    problems: Problems = field(default_factory=Problems)
    columns: dict[str, str] = field(default_factory=dict)
    """Columns that were read, and how, by source."""
    warnings: list[str] = field(default_factory=list)
    """Suspicious places that were read anyway."""
    missed: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """Unread columns that the answers may depend on, by source."""
    unanswerable: int = 0
    """Number of questions without an answer that were skipped."""
    dialogues: bool = False
    """Whether a source contains dialogues, of which one line gives several pairs."""

    def pairs(self) -> Iterator[tuple[int, int, Pair]]:
        """Iterate over (index of the source, line, pair), in order.

        Raises:
            UserError: a source cannot be opened or lacks a column; or, at the end, if any line was bad.
        """
        self.check()
        for number in range(len(self.sources)):
            yield from self.pairs_of(number)
        self.conclude()

    def check(self) -> None:
        """Check the settings, before anything is read.

        Raises:
            UserError: there is no such encoding.
        """
        check_encoding(self.reading.encoding)

    def pairs_of(self, number: int) -> Iterator[tuple[int, int, Pair]]:
        """Iterate over (index of the source, line, pair) of one source.

        Raises:
            UserError: it cannot be opened or lacks a column.
        """
        return ((number, line, pair) for line, pair in self._pairs_of(self.sources[number]))

    def add(self, other: "PairReader") -> None:
        """Add what another reader found in its sources, which follow those read so far."""
        self.problems.add_all(other.problems)
        self.columns |= other.columns
        self.warnings += other.warnings
        self.missed |= other.missed
        self.unanswerable += other.unanswerable
        self.dialogues |= other.dialogues

    def conclude(self) -> None:
        """Check that lines were good, after all sources are read.

        Raises:
            UserError: any line was bad.
        """
        if self.problems.count and (self.problems.fatal or not self.reading.skip_bad_lines):
            raise self.problems.error()

    def found(self) -> dict[str, Any]:
        """The findings as plain values for JSON."""
        problems = self.problems
        return {
            "columns": self.columns,
            "bad_lines": {"count": problems.count, "kinds": dict(problems.kinds), "listed": problems.listed},
            "warnings": [*self.warnings, *missed_in_words(self.missed)],
            "unanswerable": self.unanswerable,
            "dialogues": self.dialogues,
        }

    def _pairs_of(self, source: Source) -> Iterator[tuple[int, Pair]]:
        columns: Columns | None = None
        remarks = Remarks()
        for found in with_lists(lambda filled: source.records(self.reading, filled), self.reading, remarks):
            if isinstance(found, BadLine):
                self.problems.add(source.name, found)
                continue
            line, record = found
            try:
                if columns is None:
                    columns = self.reading.columns_of(record)
                    seen = SeenColumns(columns.read)
            except ValueError as error:
                fixed = source.has_fixed_columns
                self.problems.add(source.name, BadLine(1 if fixed else line, str(error), fatal=fixed))
                if fixed:
                    return
                continue
            if record.keys() != seen.keys or seen.empty:
                seen.note(record)
            try:
                pairs = pairs_from(record, columns)
            except ValueError as error:
                self.problems.add(source.name, BadLine(line, str(error)))
            except Unanswerable:
                self.unanswerable += 1
            else:
                for pair in pairs:
                    if pair.answer[0] in "[{" and written_list(pair.answer) is not None:
                        remarks.doubt(LIST_AS_TEXT, line)
                    yield line, pair
        if columns is not None:
            self._conclude(source, columns, seen, remarks)

    def _conclude(self, source: Source, columns: Columns, seen: SeenColumns, remarks: Remarks) -> None:
        self.columns[source.name] = columns.in_words(seen.names) + seen.in_words() + remarks.in_words()
        self.missed[source.name] = seen.missed()
        self.warnings += remarks.warnings(source.name)
        self.dialogues |= columns.turns is not None
        if self.reading.columns.group is not None and not columns.by_answer and columns.group not in seen.names:
            self.problems.add(source.name, BadLine(1, f"no column {columns.group} (data.group)", fatal=True))

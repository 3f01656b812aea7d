"""From files to pairs with their places: the one way in, whatever the format."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from qa_lm.data.columns import ColumnNames, Columns, choose_columns, pair_from
from qa_lm.data.files import check_encoding, data_suffix, find_files
from qa_lm.data.formats import SUFFIXES, Found, read_records
from qa_lm.data.hub import read_hub
from qa_lm.data.pairs import Pair
from qa_lm.data.problems import BadLine, Problems, Remarks
from qa_lm.data.written_lists import with_lists, written_list
from qa_lm.errors import UserError

BLOCK = 1 << 20
RULES = 2
"""Raised when a file is read as other pairs than before, so that pairs that were kept are not used."""


@dataclass(frozen=True)
class Reading:
    """How files are read."""

    columns: ColumnNames = field(default_factory=ColumnNames)
    """Names of the columns; None for each that is to be recognised."""
    header: tuple[str, ...] | None = None
    """Columns of CSV, TSV and Excel files without a header line."""
    encoding: str = "utf-8"
    skip_bad_lines: bool = False
    """Whether bad lines are left out and counted, instead of ending the run."""


@dataclass(frozen=True)
class Source:
    """A file of pairs, or a data set of the hub."""

    name: str
    """What is shown: the file's name as the user gave it."""
    path: Path | None = None
    subset: str | None = None
    split: str = "train"

    def records(self, reading: Reading, remarks: Remarks | None = None) -> Iterator[Found]:
        """The records and bad lines, in order; `remarks` is filled with how they were read."""
        if self.path is None:
            return read_hub(self.name, self.subset, self.split)
        return read_records(self.path, data_suffix(self.path), reading.encoding, reading.header, remarks)

    @property
    def has_fixed_columns(self) -> bool:
        """Whether all records have the same columns, so that one record without the wanted ones means none has them."""
        return self.path is None or data_suffix(self.path) not in (".jsonl", ".json")

    @property
    def may_lack_header(self) -> bool:
        """Whether this is a CSV or TSV file, or an Excel workbook."""
        return self.path is not None and data_suffix(self.path) in (".csv", ".tsv", ".xlsx")

    def content_key(self) -> str | None:
        """sha256 of the file's bytes; None where there is no file to look at.

        Raises:
            UserError: the file cannot be read.
        """
        if self.path is None:
            return None
        digest = hashlib.sha256(data_suffix(self.path).encode())
        try:
            with self.path.open("rb") as file:
                while block := file.read(BLOCK):
                    digest.update(block)
        except OSError as error:
            raise UserError(f"{self.path}: cannot be read: {error.strerror or error}") from None
        return digest.hexdigest()


def file_sources(patterns: str | Sequence[str], setting: str) -> list[Source]:
    """The sources that file names and globs stand for.

    Raises:
        UserError: see `find_files`.
    """
    return [Source(str(path), path) for path in find_files(patterns, SUFFIXES, setting)]


@dataclass
class PairReader:
    """Reads sources one after the other; `problems`, `columns` and `warnings` fill while `pairs` is run through."""

    sources: Sequence[Source]
    reading: Reading
    problems: Problems = field(default_factory=Problems)
    columns: dict[str, str] = field(default_factory=dict)
    """What was read as what, and how, by source."""
    warnings: list[str] = field(default_factory=list)
    """What was read but looks wrong, with places."""

    def pairs(self) -> Iterator[tuple[int, int, Pair]]:
        """(number of the source, line, pair), in order.

        Raises:
            UserError: a source cannot be opened or has other columns; or, at the end, any line was bad.
        """
        check_encoding(self.reading.encoding)
        for number, source in enumerate(self.sources):
            for line, pair in self._pairs_of(source):
                yield number, line, pair
        if self.problems.count and (self.problems.fatal or not self.reading.skip_bad_lines):
            raise self.problems.error()

    def _pairs_of(self, source: Source) -> Iterator[tuple[int, Pair]]:
        columns: Columns | None = None
        has_group = has_more = False
        remarks = Remarks()
        for found in with_lists(lambda filled: source.records(self.reading, filled), self.reading.columns, remarks):
            if isinstance(found, BadLine):
                self.problems.add(source.name, found)
                continue
            line, record = found
            try:
                if columns is None:
                    columns = choose_columns(record, self.reading.columns)
            except ValueError as error:
                fixed = source.has_fixed_columns
                self.problems.add(source.name, BadLine(1 if fixed else line, str(error), fatal=fixed))
                if fixed:
                    return
                continue
            has_group |= columns.group in record
            has_more |= columns.question_more in record
            try:
                pair = pair_from(record, columns)
            except ValueError as error:
                self.problems.add(source.name, BadLine(line, str(error)))
            else:
                if pair.answer[0] in "[{" and written_list(pair.answer) is not None:
                    remarks.doubt("answers that are lists written as text; they are trained with their brackets", line)
                yield line, pair
        if columns is None:
            return
        self.columns[source.name] = columns.in_words(has_group, has_more) + remarks.in_words()
        self.warnings += remarks.warnings(source.name)
        if self.reading.columns.group is not None and not has_group:
            self.problems.add(source.name, BadLine(1, f"no column {columns.group} (data.group)", fatal=True))

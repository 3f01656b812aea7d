"""Columns of a file that are not read: named, and called out where the answers may rest on them."""

from collections.abc import Iterable, Iterator, KeysView, Mapping, Sequence

from qa_lm.data.records.column_names import answer_may_rest_on, prompt_with
from qa_lm.data.records.values import is_blank, listed

MOST = 200
"""Names that are kept: a file may have new ones in every record."""


class SeenColumns:
    """The columns of a source, noted record by record.

    Args:
        read: the columns that are read.
    """

    def __init__(self, read: Iterable[str]) -> None:
        self.names: dict[str, None] = {}
        self._read = set(read)
        self.keys: KeysView[str] | None = None
        """The columns of the last record that was noted."""
        self.empty: list[str] = []
        """Unread columns that the answers may rest on, but in which no text was found so far."""
        self._filled: set[str] = set()

    def note(self, record: Mapping[str, object]) -> None:
        """Take one more record into account; one with the same columns needs none while `empty` is empty."""
        if record.keys() != self.keys:
            self.keys = record.keys()
            if len(self.names) < MOST:
                self.names |= dict.fromkeys(self.keys)
            self.empty = [name for name in answer_may_rest_on(self.unread()) if name not in self._filled]
        self._filled.update(name for name in self.empty if not is_blank(record.get(name)))
        self.empty = [name for name in self.empty if name not in self._filled]

    def unread(self) -> list[str]:
        """The columns that are not read, in the file's order."""
        return [name for name in self.names if name and name not in self._read]

    def in_words(self) -> str:
        """The same for a line; empty if all are read."""
        names = self.unread()
        return f"; not read: {listed(names)}" if names else ""

    def missed(self) -> tuple[str, ...]:
        """Unread columns with text in them that the answers may rest on."""
        return tuple(name for name in answer_may_rest_on(self.unread()) if name in self._filled)


def missed_in_words(sources: Mapping[str, Sequence[str]]) -> Iterator[str]:
    """A line for all sources that have the same such columns.

    Args:
        sources: the columns of each.
    """
    by_columns: dict[tuple[str, ...], list[str]] = {}
    for source, columns in sources.items():
        if columns:
            by_columns.setdefault(tuple(columns), []).append(source)
    for columns, (first, *others) in by_columns.items():
        where = f"{first} and {len(others)} more" if others else first
        several = len(columns) > 1
        yield (
            f"{where}: the answers may rest on the column{'s' if several else ''} {listed(columns)}, which "
            f"{'are' if several else 'is'} not read; to put {'them' if several else 'it'} into the prompt: "
            f'data.prompt="{prompt_with(columns)}"'
        )

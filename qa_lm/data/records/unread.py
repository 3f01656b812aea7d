"""List the unread columns of a file, and warn if the answers may depend on them."""

from collections.abc import Iterable, Iterator, KeysView, Mapping, Sequence

from qa_lm.data.records.column_names import answer_may_rest_on, prompt_with
from qa_lm.data.records.values import is_blank, listed

MOST = 200
"""Maximum number of names kept, because a file may have new ones in every record."""


class SeenColumns:
    """The columns of a source, collected record by record.

    Args:
        read: the columns that are read.
    """

    def __init__(self, read: Iterable[str]) -> None:
        self.names: dict[str, None] = {}
        self._read = set(read)
        self.keys: KeysView[str] | None = None
        """The columns of the last record."""
        self.empty: list[str] = []
        """Unread columns that the answers may depend on, but that have contained no text so far."""
        self._filled: set[str] = set()

    def note(self, record: Mapping[str, object]) -> None:
        """Add a record. This can be skipped for a record with the same columns if `empty` is empty."""
        if record.keys() != self.keys:
            self.keys = record.keys()
            if len(self.names) < MOST:
                self.names |= dict.fromkeys(self.keys)
            self.empty = [name for name in answer_may_rest_on(self.unread()) if name not in self._filled]
        self._filled.update(name for name in self.empty if not is_blank(record.get(name)))
        self.empty = [name for name in self.empty if name not in self._filled]

    def unread(self) -> list[str]:
        """The unread columns, in the order of the file."""
        return [name for name in self.names if name and name not in self._read]

    def in_words(self) -> str:
        """Describe the unread columns in one line; empty if all are read."""
        names = self.unread()
        return f"; not read: {listed(names)}" if names else ""

    def missed(self) -> tuple[str, ...]:
        """Unread columns that contain text and that the answers may depend on."""
        return tuple(name for name in answer_may_rest_on(self.unread()) if name in self._filled)


def missed_in_words(sources: Mapping[str, Sequence[str]]) -> Iterator[str]:
    """Warnings, one for all sources with the same columns.

    Args:
        sources: columns by source.
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

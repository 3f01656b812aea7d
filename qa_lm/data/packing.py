"""Packing: whole examples side by side in rows of one length, so that hardly a position is padding.

    row 0   [ pair 17 ......... | pair 3 ..... | pair 41 ............ | - ]
    row 1   [ pair 8 .................... | pair 22 ....... | pair 5 .... ]
    position  0 1 2 3 ...         0 1 2 ...      0 1 2 ...

An example never sees another: its positions begin at 0, and attention is cut where positions do. Rows are filled best
fit (Johnson 1973): each example goes where it leaves the least room. Examples of more than an eighth of a row go first,
the longest first; the short ones that fill the gaps come in random order, so that a row is a mix and not all of one
length. Where this leaves more than 2% of the positions empty, fewer or none come in random order.

What fits depends on lengths alone. So the rows are worked out once, as a plan of lengths; an epoch then only draws,
for every place of the plan, one of the examples of its length. Every epoch has other rows, the same number of them,
and no epoch waits for packing.
"""

from typing import NamedTuple

import numpy as np

LONG = (1 / 8, 1 / 16, 0)
"""Examples longer than this share of a row are placed first; the next share is tried if the rows are not full."""
FULL = 0.98
"""Share of the positions that must hold a token for the rows to count as full."""


class RowPlan(NamedTuple):
    """Rows as lengths: row r has the places `begins[r]` to `begins[r + 1]`."""

    begins: np.ndarray
    """Where rows begin, int64, (rows + 1,)."""
    places: np.ndarray
    """All places in order of their length, int32, (examples,)."""
    examples: np.ndarray
    """All examples in order of their length, int32, (examples,)."""
    borders: np.ndarray
    """Where, in both, a length ends and the next begins."""
    row_tokens: int
    """Positions of a row."""

    @property
    def rows(self) -> int:
        """Number of rows."""
        return len(self.begins) - 1


def plan_rows(lengths: np.ndarray, row_tokens: int, seed: int) -> RowPlan:
    """Rows for examples of these lengths.

    Args:
        lengths: inputs of each example, none above `row_tokens`.
        row_tokens: positions of a row.
        seed: draws the order in which short examples come.
    """
    assert not len(lengths) or int(lengths.max()) <= row_tokens, "an example is longer than a row"
    shuffled = np.random.default_rng(seed).permutation(lengths.astype(np.int32))
    best: tuple[int, np.ndarray, np.ndarray] | None = None
    for long in LONG:
        is_long = shuffled > row_tokens * long
        coming = np.concatenate([np.sort(shuffled[is_long])[::-1], shuffled[~is_long]])
        rows = _best_fit(coming, row_tokens)
        count = int(rows.max(initial=-1)) + 1
        if best is None or count < best[0]:
            best = count, rows, coming
        if lengths.sum() >= FULL * count * row_tokens:
            break
    assert best is not None
    _, rows, coming = best
    begins = np.concatenate([[0], np.cumsum(np.bincount(rows))]) if len(rows) else np.zeros(1, np.int64)
    row_after_row = coming[np.argsort(rows, kind="stable")]
    examples = np.argsort(lengths, kind="stable").astype(np.int32)
    return RowPlan(
        begins,
        np.argsort(row_after_row, kind="stable").astype(np.int32),
        examples,
        np.flatnonzero(np.diff(lengths[examples])) + 1,
        row_tokens,
    )


def _best_fit(coming: np.ndarray, row_tokens: int) -> np.ndarray:
    """The row of each length, int32."""
    rows = np.empty(len(coming), np.int32)
    with_room: list[list[int]] = [[] for _ in range(row_tokens + 1)]  # rows by their free positions
    which = 0  # bit f is set when a row with f free positions is there
    opened = 0
    for number, length in enumerate(coming.tolist()):
        fitting = which >> length
        if fitting:
            free = length + (fitting & -fitting).bit_length() - 1  # the least room that is enough
            row = with_room[free].pop()
            if not with_room[free]:
                which ^= 1 << free
        else:
            row, free, opened = opened, row_tokens, opened + 1
        rows[number] = row
        left = free - length
        if left:
            with_room[left].append(row)
            which |= 1 << left
    return rows


def draw_rows(plan: RowPlan, generator: np.random.Generator | None) -> np.ndarray:
    """The example at each place of the plan, int32: places `begins[r]` to `begins[r + 1]` are row r.

    Args:
        plan: the rows.
        generator: draws among the examples of one length; None takes them in order.
    """
    examples = plan.examples
    if generator is not None:
        examples = examples.copy()
        for of_one_length in np.split(examples, plan.borders):
            generator.shuffle(of_one_length)  # in place: a view
    placed = np.empty_like(examples)
    placed[plan.places] = examples
    return placed


def fill(plan: RowPlan, lengths: np.ndarray) -> float:
    """Share of all positions that hold a token."""
    return float(lengths.sum()) / (plan.rows * plan.row_tokens) if plan.rows else 1.0

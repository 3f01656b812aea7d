"""Packing: whole examples side by side in rows of one length, so that hardly a position is padding.

    row 0   [ pair 17 ......... | pair 3 ..... | pair 41 ............ | - ]
    row 1   [ pair 8 .................... | pair 22 ....... | pair 5 .... ]
    position  0 1 2 3 ...         0 1 2 ...      0 1 2 ...

An example never sees another: its positions begin at 0, and attention is cut where positions do.

Rows are filled one by one, best fit. A row begins with the longest example that is left, if there is one of more than
an eighth of a row, or with short ones in random order, so that a row is a mix and not all of one length. The room that
then remains is given to the set of examples that fills it best, found by dynamic programming over the lengths that are
left (a subset sum; Gupta and Ho 1999 call it minimum bin slack).

What fits depends on lengths alone. So the rows are worked out once, as a plan of lengths; an epoch then only draws,
for every place of the plan, one of the examples of its length. Every epoch has other rows, the same number of them,
and no epoch waits for packing.
"""

from array import array
from bisect import bisect_right
from itertools import chain
from typing import NamedTuple

import numpy as np

FULL = 0.97
"""Rows must be so full."""
FEW_ROWS = 5
"""Rows of a file that is too small to fill them: longer ones would only make its steps larger and fewer."""

LONG = 1 / 8
"""Examples longer than this share of a row begin one each, the longest first."""
ROOM = 1 / 4
"""Share of a row that is left to the best set, where the row begins with short examples."""
STEPS = 512
"""Steps of the search for the best set of one row: lengths that never sum to the room must not take for ever."""

PART = 1 << 16
"""Examples that are Python numbers at once."""


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
    coming = np.random.default_rng(seed).permutation(lengths.astype(np.int32))
    is_long = coming > row_tokens * LONG
    coming = np.concatenate([np.sort(coming[is_long])[::-1], coming[~is_long]])
    row_after_row, begins = _fill_rows(coming, row_tokens)
    examples = np.argsort(lengths, kind="stable").astype(np.int32)
    return RowPlan(
        begins,
        np.argsort(row_after_row, kind="stable").astype(np.int32),
        examples,
        np.flatnonzero(np.diff(lengths[examples])) + 1,
        row_tokens,
    )


def _fill_rows(coming: np.ndarray, row_tokens: int) -> tuple[np.ndarray, np.ndarray]:
    """Lengths row after row, and where each row begins (rows + 1,).

    Args:
        coming: lengths in the order in which they begin rows: the long ones, then the short ones.
        row_tokens: positions of a row.
    """
    left = np.bincount(coming).tolist()  # by length
    taken = [0] * len(left)  # of those that still stand in `coming`, by length
    lengths = np.unique(coming).tolist()
    filled, begins = array("i"), array("q", [0])
    room = row_tokens
    for length in chain.from_iterable(part.tolist() for part in np.split(coming, range(PART, len(coming), PART))):
        if taken[length]:
            taken[length] -= 1
            continue
        left[length] -= 1
        filled.append(length)
        room -= length
        if room > row_tokens * ROOM and length <= row_tokens * LONG:
            continue
        for other in _best_set(room, lengths, left):
            left[other] -= 1
            taken[other] += 1
            filled.append(other)
        begins.append(len(filled))
        room = row_tokens
        if len(begins) % 1024 == 0:
            lengths = [each for each in lengths if left[each]]
    if begins[-1] < len(filled):
        begins.append(len(filled))
    return np.frombuffer(filled, np.int32), np.frombuffer(begins, np.int64)


def _best_set(room: int, lengths: list[int], left: list[int]) -> list[int]:
    """Lengths that fill the room as far as can be, the search going from the longest to the shortest.

    Args:
        room: free positions.
        lengths: all lengths, ascending.
        left: how many examples of each length there are.
    """
    sums, within = 1, (1 << room + 1) - 1  # bit s is set when some set of lengths sums to s
    steps: list[tuple[int, int]] = []  # a length, and the sums before it was added
    for length in reversed(lengths[: bisect_right(lengths, room)]):
        for _ in range(min(left[length], room // length)):
            more = (sums | sums << length) & within
            if more == sums:
                break
            steps.append((length, sums))
            sums = more
        if sums >> room or len(steps) > STEPS:
            break
    total, chosen = sums.bit_length() - 1, []
    for length, before in reversed(steps):
        if not before >> total & 1:  # the total was reached by this length
            chosen.append(length)
            total -= length
    return chosen


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


def row_tokens(lengths: np.ndarray) -> int:
    """Positions of a packed row: the shortest power of two that holds every example in rows that are full or few.

    Attention compares every position of a row with every other, though examples see only themselves.

    Args:
        lengths: inputs of each trained pair.
    """
    row = 1 << max(5, int(lengths.max() - 1).bit_length())
    plan = plan_rows(lengths, row, 0)
    while fill(plan, lengths) < FULL and row < 16 * lengths.mean() and plan.rows > FEW_ROWS:
        row *= 2
        plan = plan_rows(lengths, row, 0)
    return row

"""Packing: put whole examples next to each other in rows of equal length, so that almost nothing is padding.

    row 0   [ pair 17 ......... | pair 3 ..... | pair 41 ............ | - ]
    row 1   [ pair 8 .................... | pair 22 ....... | pair 5 .... ]
    position  0 1 2 3 ...         0 1 2 ...      0 1 2 ...

An example never sees another one: its positions start at 0, and attention does not cross such a start.

Rows are filled one by one with best fit. A row starts with the longest remaining example if it is longer than an eighth
of a row, otherwise with short examples in random order, so that rows mix different lengths. The remaining space is
given to the set of examples that fills it best, found by dynamic programming over the remaining lengths (a subset sum,
called minimum bin slack by Gupta and Ho 1999).

The packing depends only on lengths. It is therefore computed once, as a plan of lengths, and each epoch only draws an
example of the planned length for each slot. Every epoch has different rows, but the same number, and no epoch waits for
packing. The plan and the drawn rows are in files if there are millions of examples (see `qa_lm.data.storage.arrays`).
"""

from array import array
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import NamedTuple

import numpy as np

from qa_lm.data.storage.arrays import Gathered, blocks, counted, joined, order_of, zeros

MIN_FILL = 0.97
"""Share of positions with a token from which rows are not lengthened any more."""
FEW_ROWS = 5
"""With at most this number of rows, rows are not lengthened: steps would only become larger and fewer."""
SHORT_ROW = 512
"""Up to this number of positions, longer rows are preferred to more rows that are filled as well."""

LONG = 1 / 8
"""Examples longer than this share of a row start a row each, the longest first."""
FREE_SPACE = 1 / 4
"""Share of a row that is filled by the best set if the row starts with short examples."""
MAX_STEPS = 512
"""Maximum steps of the search for the best set of a row, in case no set fills the space exactly."""

PART = 1 << 16
"""Number of lengths that are Python integers at once."""


class RowPlan(NamedTuple):
    """A plan of row lengths: row r has the slots `begins[r]` to `begins[r + 1]`."""

    begins: np.ndarray
    """First slot of each row, int64, (rows + 1,)."""
    places: np.ndarray
    """All slots sorted by length, int32, (examples,)."""
    examples: np.ndarray
    """All examples sorted by length, int32, (examples,)."""
    borders: np.ndarray
    """Offsets in `places` and `examples` at which the length changes."""
    row_tokens: int
    """Positions of a row."""

    @property
    def rows(self) -> int:
        """Number of rows."""
        return len(self.begins) - 1


def plan_rows(lengths: np.ndarray, row_tokens: int, seed: int) -> RowPlan:
    """Plan the rows for examples of these lengths.

    Args:
        lengths: number of inputs of each example, at most `row_tokens`.
        row_tokens: positions of a row.
        seed: random seed of the order of short examples.
    """
    assert not len(lengths) or int(lengths.max()) <= row_tokens, "an example is longer than a row"
    counts = counted(lengths)
    shuffled = joined([lengths], np.int32)
    np.random.default_rng(seed).shuffle(shuffled)
    row_after_row, begins = _fill_rows(_starting(shuffled, counts, row_tokens), counts, row_tokens)
    with_examples = np.cumsum(counts)[np.flatnonzero(counts)]
    return RowPlan(begins, order_of(row_after_row), order_of(lengths), with_examples[:-1], row_tokens)


def _starting(shuffled: np.ndarray, counts: np.ndarray, row_tokens: int) -> Iterator[list[int]]:
    """Lengths in the order in which they start rows: the long ones, the longest first, and then the short ones."""
    for length in reversed(np.flatnonzero(counts).tolist()):
        if length > row_tokens * LONG:
            for begin in range(0, int(counts[length]), PART):
                yield [length] * min(PART, int(counts[length]) - begin)
    for begin in range(0, len(shuffled), PART):
        part = shuffled[begin : begin + PART]
        yield part[part <= row_tokens * LONG].tolist()


def _fill_rows(coming: Iterable[list[int]], counts: np.ndarray, row_tokens: int) -> tuple[np.ndarray, np.ndarray]:
    """Lengths of all slots, row by row, and the first slot of each row, (rows + 1,).

    Args:
        coming: lengths in the order in which they start rows, in parts.
        counts: number of examples by length.
        row_tokens: positions of a row.
    """
    left = counts.tolist()  # number of unplaced examples by length
    taken = [0] * len(left)  # number of placed examples that are still ahead in `coming`, by length
    lengths = np.flatnonzero(counts).tolist()
    slots, rows = _Numbers("i"), _Numbers("q")
    filled, begins = slots.numbers, rows.numbers
    begins.append(0)
    room = row_tokens
    for length in chain.from_iterable(coming):
        if taken[length]:
            taken[length] -= 1
            continue
        left[length] -= 1
        filled.append(length)
        room -= length
        if room > row_tokens * FREE_SPACE and length <= row_tokens * LONG:
            continue
        for other in _best_set(room, lengths, left):
            left[other] -= 1
            taken[other] += 1
            filled.append(other)
        begins.append(slots.written + len(filled))
        room = row_tokens
        if len(begins) % 1024 == 0:
            lengths = [each for each in lengths if left[each]]
            slots.write()
            rows.write()
    if room < row_tokens:
        begins.append(slots.written + len(filled))
    return slots.array(), rows.array()


class _Numbers:
    """Integers that are appended one by one, and written when they are many."""

    def __init__(self, kind: str) -> None:
        self.numbers = array(kind)
        self._gathered = Gathered(np.dtype(kind))

    @property
    def written(self) -> int:
        """Number of integers that are no longer in `numbers`."""
        return self._gathered.count

    def write(self) -> None:
        """Write `numbers` and empty it, if they are many."""
        if len(self.numbers) >= PART:
            self._gathered.add(np.array(self.numbers))
            del self.numbers[:]

    def array(self) -> np.ndarray:
        """All integers."""
        self._gathered.add(np.array(self.numbers))
        return self._gathered.array()


def _best_set(room: int, lengths: list[int], left: list[int]) -> list[int]:
    """Find lengths that fill the free positions best; longer examples are tried first.

    Args:
        room: number of free positions.
        lengths: all lengths, ascending.
        left: number of examples by length.
    """
    sums, within = 1, (1 << room + 1) - 1  # bit s is set when some set of lengths sums to s
    steps: list[tuple[int, int]] = []  # an added length, and the sums before it
    for length in reversed(lengths[: bisect_right(lengths, room)]):
        for _ in range(min(left[length], room // length)):
            more = (sums | sums << length) & within
            if more == sums:
                break
            steps.append((length, sums))
            sums = more
        if sums >> room or len(steps) > MAX_STEPS:
            break
    total, chosen = sums.bit_length() - 1, []
    for length, before in reversed(steps):
        if not before >> total & 1:  # the total was reached by this length
            chosen.append(length)
            total -= length
    return chosen


def draw_rows(plan: RowPlan, generator: np.random.Generator | None) -> np.ndarray:
    """Draw an example for each slot of the plan, int32; slots `begins[r]` to `begins[r + 1]` are row r.

    Args:
        plan: the rows.
        generator: random generator; None takes the examples of each length in order.
    """
    examples = plan.examples
    if generator is not None:
        examples = joined([examples], examples.dtype)
        for of_one_length in np.split(examples, plan.borders):
            generator.shuffle(of_one_length)  # a view, so this shuffles `examples`
    placed = zeros(len(examples), examples.dtype)
    for block in blocks(len(examples)):
        placed[plan.places[block]] = examples[block]
    return placed


def fill(plan: RowPlan, lengths: np.ndarray) -> float:
    """Share of the positions that contain a token."""
    return float(lengths.sum()) / (plan.rows * plan.row_tokens) if plan.rows else 1.0


def row_tokens(lengths: np.ndarray) -> int:
    """Choose the positions of a packed row: the smallest power of two that fits every example in well-filled rows.

    Short rows save time, because attention compares all positions of a row although examples see only themselves. If no
    rows are well filled, those that are filled best are chosen.

    Args:
        lengths: number of inputs of each trained pair.
    """
    row = best = 1 << max(5, int(lengths.max() - 1).bit_length())
    plan = plan_rows(lengths, row, 0)
    best_fill = fill(plan, lengths)
    while best_fill < MIN_FILL and row < 16 * lengths.mean() and plan.rows > FEW_ROWS:
        row *= 2
        plan = plan_rows(lengths, row, 0)
        filled = fill(plan, lengths)
        if filled > best_fill or (filled == best_fill and row <= SHORT_ROW):
            best, best_fill = row, filled
    return best

"""Pairs with more tokens than a row or the model takes."""

from typing import Any

import numpy as np

from qa_lm.data.splits import Split
from qa_lm.data.store import EncodedPairs
from qa_lm.data.table import PairTable
from qa_lm.errors import UserError

LISTED = 20
EFFECTS = {
    "drop": "they are left out",
    "truncate_question": "their questions lose tokens at the front, their answers none",
}


def within_limit(
    split: Split, examples: EncodedPairs, table: PairTable, policy: str, settings: str
) -> tuple[Split, dict[str, Any]]:
    """The split without what cannot be trained, and what was found.

    The answer and its EOS are never cut: a pair whose answer alone is too long cannot be kept by any policy but
    `drop`.

    Args:
        split: places of pairs.
        examples: the pairs encoded, with their limit.
        table: all pairs.
        policy: "error", "drop" or "truncate_question".
        settings: the settings that make the limit, for errors.

    Raises:
        UserError: by policy, or because nothing is left on a side.
    """
    used = np.sort(np.concatenate([split.train, split.validation, split.test]))
    long = used[examples.full_lengths(used) > examples.limit]
    found = {
        "count": len(long),
        "limit": examples.limit,
        "policy": policy,
        "effect": EFFECTS.get(policy, ""),
        "listed": [table.place(index) for index in long[:LISTED].tolist()],
    }
    if policy == "error":
        _refuse(long, examples, table, f"Set {settings} to {_longest(examples, long):,} or more, or data.too_long")
    elif policy == "truncate_question":
        _refuse(
            long[examples.answer_lengths(long) > examples.limit],
            examples,
            table,
            "Even without their questions. Set data.too_long=drop",
        )
    elif len(long):
        split = _without(split, long)
    return split, found


def _without(split: Split, dropped: np.ndarray) -> Split:
    train, validation, test = (side[~np.isin(side, dropped)] for side in split[:3])
    for name, before, after in (("train", split.train, train), ("validation", split.validation, validation)):
        if len(before) and not len(after):
            raise UserError(f"data.too_long=drop leaves no pair to {name}", "data.too_long")
    return Split(train, validation, test, split.held_out[~np.isin(split.validation, dropped)])


def _refuse(long: np.ndarray, examples: EncodedPairs, table: PairTable, advice: str) -> None:
    if len(long):
        raise UserError(
            f"{len(long):,} of {len(table):,} pairs have more than {examples.limit:,} tokens, the first one at "
            f"{table.place(long[0])}: {table.pairs(long[:1])[0].question[:60]!r}\n{advice}"
        )


def _longest(examples: EncodedPairs, long: np.ndarray) -> int:
    return int(examples.full_lengths(long).max()) if len(long) else 0

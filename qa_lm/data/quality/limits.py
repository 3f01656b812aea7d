"""Pairs with more tokens than a row or the model's context."""

from typing import Any

import numpy as np

from qa_lm.data.batches.store import EncodedPairs
from qa_lm.data.splits.draw import Split
from qa_lm.data.storage.arrays import ascending, blocks, joined
from qa_lm.data.table import PairTable
from qa_lm.errors import UserError

LISTED = 20
EFFECTS = {
    "report": "training refuses them unless data.too_long is drop or truncate_question",
    "drop": "they are left out",
    "truncate_question": "their questions lose tokens at the start; answers are never cut",
}


def within_limit(
    split: Split, examples: EncodedPairs, limit: int, table: PairTable, policy: str, setting: str
) -> tuple[Split, dict[str, Any]]:
    """Apply the policy for pairs that are too long; returns the split and a report.

    Answers and their EOS are never cut: with "truncate_question", an answer that alone is too long is an error.

    Args:
        split: indices per split.
        examples: the encoded pairs.
        limit: maximum number of inputs of an example.
        table: all pairs.
        policy: "error", "drop", "truncate_question", or "report" to only report them.
        setting: name of the setting that defines the limit, for error messages.

    Raises:
        UserError: the policy demands it, or a split would become empty.
    """
    used = ascending(split[:3], len(table))
    full = examples.full_lengths(used)
    long = joined((used[block][full[block] > limit] for block in blocks(len(used))), np.int32)
    report = {
        "count": len(long),
        "limit": limit,
        "policy": policy,
        "effect": EFFECTS.get(policy, ""),
        "listed": [table.place(index) for index in long[:LISTED].tolist()],
    }
    if policy == "error":
        _refuse(long, limit, table, f"Set {setting}={int(full.max())} or more, or data.too_long=drop|truncate_question")
    elif policy == "truncate_question":
        too_long_answers = long[examples.answer_lengths(long) > limit]
        _refuse(
            too_long_answers,
            limit,
            table,
            f"Their answers alone are too long. Set data.too_long=drop or raise {setting}",
        )
    elif policy == "drop" and len(long):
        split = _without(split, long)
    return split, report


def _without(split: Split, dropped: np.ndarray) -> Split:
    def kept(numbers: np.ndarray, side: np.ndarray) -> np.ndarray:
        parts = (numbers[block][~np.isin(side[block], dropped)] for block in blocks(len(side)))
        return joined(parts, numbers.dtype)

    train, validation, test = (kept(side, side) for side in split[:3])
    for name, before, after in (("train", split.train, train), ("validation", split.validation, validation)):
        if len(before) and not len(after):
            raise UserError(f"data.too_long=drop leaves no pair to {name}", "data.too_long")
    return Split(train, validation, test, kept(split.held_out, split.validation))


def _refuse(long: np.ndarray, limit: int, table: PairTable, advice: str) -> None:
    if len(long):
        raise UserError(
            f"{len(long):,} of {len(table):,} pairs have more than {limit:,} tokens, the first one at "
            f"{table.place(long[0])}: {table.pairs(long[:1])[0].question[:60]!r}\n{advice}"
        )

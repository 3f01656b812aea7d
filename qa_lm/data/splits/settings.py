"""The split that the settings ask for."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from qa_lm.config.schema import DataConfig
from qa_lm.data.cache import cached_folder, key_of
from qa_lm.data.keys import smallest_of_group
from qa_lm.data.splits.draw import Split, given_split
from qa_lm.data.splits.registry import PairsToSplit, drawn_split
from qa_lm.data.storage import arrays
from qa_lm.data.storage.progress import with_progress
from qa_lm.data.table import PairTable
from qa_lm.errors import UserError, first_line

NEAR_GROUPS = "groups.npy"


def split_of_settings(data: DataConfig, table: PairTable, sources: list[int], root: Path) -> Split:
    """Split the pairs; validation and test files define their own splits.

    Args:
        data: the settings.
        table: all pairs.
        sources: number of files of training, validation and test pairs.
        root: folder of the cache.

    Raises:
        UserError: the pairs cannot be split in this way, or a side is empty.
    """
    ends, source = np.cumsum(sources), table.numbers("source")
    pairs, validation, test = (
        arrays.where(len(table), lambda block: np.searchsorted(ends, source[block], side="right") == number)  # noqa: B023
        for number in range(3)
    )
    to_split = PairsToSplit(table, pairs, data.held_out_phrasings, lambda: _near_units(table, pairs, root))
    if sources[1]:
        split = given_split(
            pairs, validation, test, replace(to_split, places=arrays.numbered(len(table))).keys, data.split_seed
        )
    elif len(pairs) < 2 and data.train_fraction < 1:
        raise UserError(
            "data.path: at least two pairs are needed, one for training and one for validation; "
            "data.train_fraction=1.0 trains on all of them",
            "data.path",
        )
    else:
        drawn = drawn_split(data.split, to_split, data.split_seed, data.train_fraction)
        train, validation, own_test = (
            arrays.each_block(lambda block: pairs[block], side, np.int32) for side in drawn[:3]
        )
        split = Split(train, validation, arrays.joined([test, own_test], np.int32), drawn.held_out)
    needed = [("data.path", split.train), *([("data.validation_path", split.validation)] if sources[1] else [])]
    for name, side in needed:
        if not len(side):
            raise UserError(f"{name}: holds no pairs", name)
    count = data.train_pairs
    if count is None:
        return split
    if count > len(split.train):
        raise UserError(
            f"data.train_pairs={count}: only {len(split.train):,} training pairs are available", "data.train_pairs"
        )
    return split._replace(train=split.train[:count])  # the order of a split is random already


def _near_units(table: PairTable, pairs: np.ndarray, root: Path) -> np.ndarray:
    """A key per pair that is equal within a near-duplicate group: the smallest question key of the group."""

    def make(folder: Path) -> dict[str, Any]:
        from qa_lm.data.quality.near import near_groups  # scipy and datasketch take a second to import

        questions = (pair.question for batch in with_progress(table.batches(), "comparing", "batch") for pair in batch)
        np.save(folder / NEAR_GROUPS, near_groups(questions, table.numbers("normalised_key")))
        return {}

    folder = cached_folder(root / "near", key_of(kind="near", pairs=table.fingerprint), make)
    try:
        groups = np.load(folder / NEAR_GROUPS, allow_pickle=False)[pairs]
    except (ValueError, IndexError) as error:  # pickled objects, or too few values
        raise UserError(f"{folder / NEAR_GROUPS}: is damaged: {first_line(error)}; delete its folder") from None
    return smallest_of_group(groups, table.numbers("normalised_key")[pairs])

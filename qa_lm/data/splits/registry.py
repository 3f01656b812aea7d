"""The splits by name: those of qa_lm, and those that the user registers."""

import difflib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from qa_lm.data.splits.draw import Split, by_mask, group_split, joined_units, random_order, shuffled_split, unit_split
from qa_lm.data.storage.arrays import blocks, each_block, joined
from qa_lm.errors import UserError, first_line

if TYPE_CHECKING:
    from qa_lm.data.pairs import Pair
    from qa_lm.data.table import PairTable


@dataclass(frozen=True)
class PairsToSplit:
    """The pairs to split, numbered from 0 in the order of the files; iterating over this object gives their texts."""

    table: "PairTable"
    """All pairs, also those of `data.test_path`."""
    places: np.ndarray
    """Index of each pair in the table; ascending."""
    held_out_phrasings: int
    """The setting `data.held_out_phrasings`."""
    near_units: Callable[[], np.ndarray]
    """Returns a key for each pair, (pairs,) uint64, equal for near-duplicate questions. The first call takes time."""

    def __len__(self) -> int:
        return len(self.places)

    def __iter__(self) -> "Iterator[Pair]":
        return self.table.texts(self.places)

    def numbers(self, column: str) -> np.ndarray:
        """A column of `qa_lm.data.table.COLUMNS`, (pairs,): `answer_characters`, `group_key`, `source`, `line`, ..."""
        column_of_all = self.table.numbers(column)  # memory need not hold it
        if len(self) == len(column_of_all):
            return column_of_all
        return each_block(lambda block: column_of_all[block], self.places, column_of_all.dtype)

    @property
    def keys(self) -> np.ndarray:
        """A key for each pair, (pairs,) uint64, equal for pairs with equal texts."""
        answers, questions = self.numbers("answer_key"), self.numbers("question_key")
        parts = (answers[block] ^ (questions[block] << np.uint64(1)) for block in blocks(len(self)))
        return joined(parts, np.uint64)


SplitFunction = Callable[[PairsToSplit, int, float], Split | np.ndarray]
"""Returns a `Split`, or a mask of the pairs to hold out, (pairs,) bool; its arguments are the pairs, the seed
(`data.split_seed`) and the share to train (`data.train_fraction`)."""
SPLITS: dict[str, SplitFunction] = {}
"""Functions by the value of `data.split`."""


def register_split(name: str) -> Callable[[SplitFunction], SplitFunction]:
    """Decorate a function to register it as `data.split=NAME`; it replaces an earlier one.

    Raises:
        UserError: the name is one of qa_lm's own splits.
    """
    if name in BUILT_IN:
        raise UserError(f"register_split({name!r}): is a split of qa_lm; choose another name")

    def register(function: SplitFunction) -> SplitFunction:
        SPLITS[name] = function
        return function

    return register


def check_split(name: str) -> None:
    """Check that `data.split` has this value.

    Raises:
        UserError: the value is unknown; the message suggests a similar name.
    """
    if name in SPLITS:
        return
    close = difflib.get_close_matches(name, SPLITS, 1)
    hint = f"did you mean {close[0]}?" if close else "for a split of your own, trust the module that registers it"
    raise UserError(f"data.split={name}: must be one of {', '.join(SPLITS)}; {hint}", "data.split")


def drawn_split(name: str, pairs: PairsToSplit, seed: int, train_fraction: float) -> Split:
    """Compute the split of this name, with indices from 0 to the number of pairs.

    The result of a registered function is checked. It is not called if all pairs are trained.

    Raises:
        UserError: the name is unknown, the pairs cannot be split in this way, or a registered function fails.
    """
    check_split(name)
    if name in BUILT_IN:
        found = SPLITS[name](pairs, seed, train_fraction)
        assert isinstance(found, Split)
        return found
    try:
        own = SPLITS[name](pairs, seed, train_fraction) if train_fraction < 1 else np.zeros(len(pairs), bool)
    except UserError:
        raise
    except Exception as error:  # the user's own code can raise anything
        raise UserError(
            f"data.split={name}: failed with {type(error).__name__}: {first_line(error)}", "data.split"
        ) from error
    if wrong := _wrong(own, len(pairs), train_fraction):
        raise UserError(f"data.split={name}: {wrong}", "data.split")
    if isinstance(own, Split):
        return own
    order, _ = random_order(pairs.keys, pairs.keys, seed)
    return by_mask(order, own)


def _wrong(found: object, count: int, train_fraction: float) -> str | None:
    """Describe what is wrong with the result of a split function; None if it is valid."""
    if isinstance(found, Split):
        sides = [np.asarray(side) for side in found[:3]]
        places = np.concatenate(sides)
        if places.dtype.kind not in "iu" or not all(each.ndim == 1 for each in sides):
            return "its sides must be arrays of places, whole numbers"
        if len(places) and not 0 <= places.min() <= places.max() < count:
            return f"its places must be from 0 to {count - 1:,}"
        if len(np.unique(places)) < len(places):
            return "a pair stands twice in its sides"
        if len(found.held_out) != len(found.validation):
            return f"held_out has {len(found.held_out):,} values for {len(found.validation):,} validation pairs"
        trained, held_out = len(found.train), len(found.validation)
    elif isinstance(found, np.ndarray) and found.dtype == bool and found.shape == (count,):
        trained, held_out = count - int(found.sum()), int(found.sum())
    else:
        what = f"{found.dtype} of shape {found.shape}" if isinstance(found, np.ndarray) else type(found).__name__
        return f"must return a Split or a mask of the held-out pairs, bool of shape ({count},), not {what}"
    if not trained:
        return "holds out all pairs, so that none is trained"
    if not held_out and train_fraction < 1:
        return "holds out no pair; data.train_fraction=1.0 trains on all of them"
    return None


def _shuffle(pairs: PairsToSplit, seed: int, train_fraction: float) -> Split:
    return shuffled_split(len(pairs), train_fraction, seed)


def _question(pairs: PairsToSplit, seed: int, train_fraction: float) -> Split:
    return _by_units(pairs, pairs.numbers("normalised_key"), seed, train_fraction, "question")


def _near(pairs: PairsToSplit, seed: int, train_fraction: float) -> Split:
    return _by_units(pairs, pairs.near_units(), seed, train_fraction, "near-duplicate group")


def _by_units(pairs: PairsToSplit, units: np.ndarray, seed: int, train_fraction: float, what: str) -> Split:
    if pairs.table.dialogues:  # each pair of a dialogue holds the ones before
        units = joined_units(units, pairs.numbers("source"), pairs.numbers("line"))
    return unit_split(units, pairs.keys, train_fraction, seed, what)


def _by_group(phrasings: bool, facts: bool) -> SplitFunction:
    """A split that holds out phrasings of trained facts, whole facts, or both."""

    def split(pairs: PairsToSplit, seed: int, train_fraction: float) -> Split:
        hold_out_facts = facts and train_fraction < 1
        if not (phrasings or hold_out_facts):
            return _question(pairs, seed, train_fraction)
        groups, questions = pairs.numbers("group_key"), pairs.numbers("normalised_key")
        number = pairs.held_out_phrasings if phrasings else 0
        return group_split(groups, questions, pairs.keys, train_fraction, seed, number, hold_out_facts)

    return split


SPLITS |= {
    "shuffle": _shuffle,
    "question": _question,
    "near": _near,
    "fact": _by_group(phrasings=False, facts=True),
    "phrasing": _by_group(phrasings=True, facts=False),
    "phrasing_and_fact": _by_group(phrasings=True, facts=True),
}
BUILT_IN = frozenset(SPLITS)

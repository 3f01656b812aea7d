"""Which pairs a model knew before training: known_before.parquet.

A pair is known if the model answers it exactly by greedy decoding, either with the run's own prompt or after worked
examples (`worked_examples`). The own prompt alone is not enough, because a base model may know the fact and give it in
other words (Gekhman et al., arXiv:2405.05904). Any accepted answer counts. Nothing is generated (`teacher_forcing`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm
from transformers import PreTrainedModel

from qa_lm.data.encoding import Example, encode_pairs
from qa_lm.data.prepare import PreparedData
from qa_lm.evaluation.before.teacher_forcing import Prefix, force
from qa_lm.evaluation.before.worked_examples import NOT_ASKED, AnswerEnd, draw_examples, later, set_of_each
from qa_lm.modeling.causal_lm import context_of, packs_exactly
from qa_lm.run.atomic import replacing
from qa_lm.run.run_folder import KNOWN_BEFORE

AT_ONCE = 4096
"""Number of pairs that are in memory at once."""
SCHEMA = pa.schema(
    {
        "pair": pa.int64(),
        "place": pa.string(),
        "split": pa.string(),
        "known": pa.bool_(),
        "own_prompt": pa.bool_(),
        "after_examples": pa.bool_(),
        "loss": pa.float32(),
    }
)
SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class KnownBefore:
    """What the model knew; arrays have one value per pair."""

    pairs: np.ndarray
    """Indices in the table, ascending, int64."""
    own_prompt: np.ndarray
    """Whether the run's own prompt gives the answer, bool."""
    after_examples: np.ndarray
    """1 if worked examples and the prompt give the answer, otherwise 0; `NOT_ASKED` if no examples fit, int8."""
    losses: np.ndarray
    """Mean loss of the answer's tokens (EOS included) after the run's own prompt, in nats, float32."""

    @cached_property
    def known(self) -> np.ndarray:
        """Whether each pair is known, bool."""
        known: np.ndarray = self.own_prompt | (self.after_examples == 1)
        return known

    def rows(self, pairs: np.ndarray) -> np.ndarray:
        """Rows of pairs by their indices in the table."""
        return np.searchsorted(self.pairs, pairs)

    def of(self, pairs: np.ndarray) -> list[bool]:
        """Whether the pairs at these indices of the table are known."""
        known: list[bool] = self.known[self.rows(pairs)].tolist()
        return known

    def save(self, folder: Path, prepared: PreparedData) -> None:
        """Write known_before.parquet."""
        table, splits = prepared.table, np.empty(len(prepared.table), object)
        for name in SPLITS:
            splits[getattr(prepared.split, name)] = name
        columns = {
            "pair": self.pairs,
            "place": [table.place(place) for place in self.pairs],
            "split": splits[self.pairs],
            "known": self.known,
            "own_prompt": self.own_prompt,
            "after_examples": pa.array(self.after_examples == 1, mask=self.after_examples == NOT_ASKED),
            "loss": self.losses,
        }
        with replacing(folder / KNOWN_BEFORE) as temporary:
            pq.write_table(pa.table(columns, schema=SCHEMA), temporary)

    @classmethod
    def load(cls, folder: Path, prepared: PreparedData) -> "KnownBefore | None":
        """Read what `save` wrote; None if the file is missing, damaged, or of other pairs."""
        try:
            columns = pq.read_table(folder / KNOWN_BEFORE).cast(SCHEMA)
            after = columns["after_examples"].cast(pa.int8()).fill_null(NOT_ASKED)
            found = cls(
                columns["pair"].to_numpy(),
                columns["own_prompt"].to_numpy(),
                after.to_numpy(),
                columns["loss"].to_numpy(),
            )
        except (OSError, ValueError, pa.ArrowException):
            return None
        return found if np.array_equal(found.pairs, _all_pairs(prepared)) else None


def _all_pairs(prepared: PreparedData) -> np.ndarray:
    """Indices of the pairs of all splits, ascending."""
    return np.sort(np.concatenate([getattr(prepared.split, name) for name in SPLITS])).astype(np.int64)


class _Asked(NamedTuple):
    """Some pairs, each with all its accepted answers."""

    examples: list[Example]
    """The encoded pairs, and then those with other accepted answers."""
    rows: np.ndarray
    """Which of the pairs each example belongs to."""
    pairs: int
    """Number of pairs."""

    def any_right(self, numbers: Sequence[int]) -> np.ndarray:
        """Whether one of these examples belongs to a pair, (pairs,)."""
        found = np.zeros(self.pairs, bool)
        found[self.rows[np.array(numbers, np.int64)]] = True
        return found


def ask_before(model: PreTrainedModel, prepared: PreparedData, seed: int) -> KnownBefore:
    """Ask an untrained model all pairs. It costs about two forward passes over them.

    Args:
        model: a causal LM in eval mode.
        prepared: the pairs.
        seed: random seed of the worked examples.
    """
    context, packed = context_of(model), packs_exactly(model)
    sets = draw_examples(prepared, context, seed)
    prefixes = [Prefix(model, each.ids) for each in sets]
    end, places = AnswerEnd(prepared.tokenizer, prepared.template), _all_pairs(prepared)
    parts: list[tuple[np.ndarray, ...]] = []
    for begin in tqdm(range(0, len(places), AT_ONCE), "asking", unit=" batch", leave=False, delay=2, disable=None):
        here = places[begin : begin + AT_ONCE]
        asked, after = _asked(prepared, here, context), np.full(len(here), NOT_ASKED, np.int8)
        parts.append((*_own_prompt(model, asked, packed), after))
        examples = [later(each, prepared.tokenizer, prepared.template) for each in asked.examples]
        chosen = set_of_each(prepared, sets, here)
        for number, prefix in enumerate(prefixes):
            _after_examples(prefix, asked._replace(examples=examples), chosen == number, end, after)
    own, losses, after = (np.concatenate(each) for each in zip(*parts, strict=True))
    return KnownBefore(places, own, after, losses.astype(np.float32))


def _asked(prepared: PreparedData, places: np.ndarray, context: int) -> _Asked:
    others = [
        (row, pair._replace(answer=answer))
        for row, pair in enumerate(prepared.table.pairs(places))
        for answer in pair.other_answers
    ]
    encoded = encode_pairs([pair for _, pair in others], prepared.tokenizer, prepared.template)
    fitting = [(row, each) for (row, _), each in zip(others, encoded, strict=True) if len(each.ids) <= context]
    rows = np.array([*range(len(places)), *(row for row, _ in fitting)], np.int64)
    examples = [*prepared.examples.examples(places), *(each for _, each in fitting)]
    return _Asked(examples, rows, len(places))


def _own_prompt(model: PreTrainedModel, asked: _Asked, packed: bool) -> tuple[np.ndarray, np.ndarray]:
    """Whether each pair is answered by the run's own prompt, and the loss of its answer."""
    forced = force(model, asked.examples, packed)
    right = [n for n, example in enumerate(asked.examples) if forced[n].greedy == example.answer_ids]
    return asked.any_right(right), np.array([each.loss for each in forced[: asked.pairs]])


def _after_examples(prefix: Prefix, asked: _Asked, wanted: np.ndarray, end: AnswerEnd, after: np.ndarray) -> None:
    """Fill in whether the wanted pairs are answered after worked examples, where these fit into the context."""
    room = context_of(prefix.model) - len(prefix.ids)
    numbers = [n for n, each in enumerate(asked.examples) if wanted[asked.rows[n]] and len(each.ids) <= room]
    forced = prefix.force([asked.examples[number] for number in numbers])
    right = []
    for number, each in zip(numbers, forced, strict=True):
        *answer, last = each.greedy
        if answer == asked.examples[number].answer_ids[:-1] and last in end:
            right.append(number)
    after[asked.any_right(numbers)] = 0
    after[asked.any_right(right)] = 1

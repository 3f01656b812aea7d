"""Encoded pairs in memory-mapped files: the ids of all examples, with the end and the prompt length of each.

    ids      [ prompt answer EOS | prompt answer EOS | ... ]   2 bytes each, or 4 if the vocabulary exceeds 65,536
    ends     [                  ^                    ^     ]   int64, per pair: offset of its last id, plus 1
    lengths  [ number of inputs (all ids except the last)  ]   int32, per pair
    prompts  [ number of prompt tokens                     ]   int32, per pair

The files contain raw numbers, no pickle. A store contains all pairs of its table in full; splits and limits are applied
when it is read.
"""

from collections.abc import Iterable
from contextlib import ExitStack
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from qa_lm.data.cache import read_meta
from qa_lm.data.encoding import Example, PromptTemplate, encode_pairs
from qa_lm.data.pairs import Pair
from qa_lm.data.storage.arrays import each_block
from qa_lm.data.tokenizer import TextTokenizer
from qa_lm.errors import UserError

DTYPES = ("uint16", "uint32")
FILES = ("ids.bin", "ends.bin", "lengths.bin", "prompts.bin")


def write_store(
    folder: Path, batches: Iterable[list[Pair]], tokenizer: TextTokenizer, template: PromptTemplate
) -> dict[str, Any]:
    """Encode batches of pairs and write them one by one.

    Returns:
        dtype: the dtype of the ids.
    """
    dtype = np.dtype(DTYPES[0] if len(tokenizer) <= 1 << 16 else DTYPES[1])
    end = 0
    with ExitStack() as stack:
        files = [stack.enter_context((folder / name).open("wb")) for name in FILES]
        for batch in batches:
            examples = encode_pairs(batch, tokenizer, template)
            sizes = np.array([len(example.ids) for example in examples], np.int64)
            ids = np.fromiter(chain.from_iterable(example.ids for example in examples), dtype, int(sizes.sum()))
            prompts = np.array([example.prompt_tokens for example in examples], np.int32)
            columns: list[np.ndarray] = [ids, end + np.cumsum(sizes), (sizes - 1).astype(np.int32), prompts]
            for file, column in zip(files, columns, strict=True):
                file.write(column.tobytes())
            end += len(ids)
    return {"dtype": dtype.name}


class Spans(NamedTuple):
    """Where examples are in an array of ids; each is an array, (examples,)."""

    begins: np.ndarray
    """Offset of the first input."""
    lengths: np.ndarray
    """Number of inputs; one more id follows them."""
    prompts: np.ndarray
    """Number of prompt tokens."""


class EncodedPairs:
    """The examples of a store, cut to a maximum number of inputs.

    A longer example loses tokens at the start of its prompt; the answer and EOS are never cut.

    Args:
        folder: a folder that `write_store` filled.
        limit: maximum number of inputs of an example (its ids except the last).
    """

    def __init__(self, folder: Path, limit: int) -> None:
        self.folder, self.limit = folder, limit
        name = read_meta(folder)["dtype"]
        if name not in DTYPES:
            raise UserError(f"{folder}: is not a valid store of encoded pairs: its ids are {name}; delete it")
        dtype = np.dtype(name)
        kinds = (dtype, np.dtype(np.int64), np.dtype(np.int32), np.dtype(np.int32))
        self.ids, self._ends, self._lengths, self._prompts = (
            np.memmap(folder / name, kind, "r") for name, kind in zip(FILES, kinds, strict=True)
        )

    def __reduce__(self) -> tuple[Any, ...]:
        """Let a worker process open the files again instead of receiving a copy."""
        return EncodedPairs, (self.folder, self.limit)

    def __len__(self) -> int:
        return len(self._prompts)

    def full_lengths(self, indices: np.ndarray) -> np.ndarray:
        """Number of inputs of each example without the limit, int32."""
        return each_block(lambda block: self._lengths[block], indices, np.int32)

    def answer_lengths(self, indices: np.ndarray) -> np.ndarray:
        """Number of tokens of each answer (EOS included), int32."""
        return each_block(lambda block: self._lengths[block] + 1 - self._prompts[block], indices, np.int32)

    def prompt_lengths(self, indices: np.ndarray) -> np.ndarray:
        """Number of tokens of each prompt with the limit, int32."""
        return self.lengths(indices) + 1 - self.answer_lengths(indices)

    def lengths(self, indices: np.ndarray) -> np.ndarray:
        """Number of inputs of each example with the limit, int32."""
        return each_block(lambda block: np.minimum(self._lengths[block], np.int32(self.limit)), indices, np.int32)

    def spans(self, indices: np.ndarray) -> Spans:
        """Where the examples are in `ids`."""
        lengths = self.lengths(indices)
        return Spans(np.asarray(self._ends[indices]) - 1 - lengths, lengths, self.prompt_lengths(indices))

    def examples(self, indices: np.ndarray) -> list[Example]:
        """Examples as lists of ids."""
        return [
            Example(self.ids[begin : begin + length + 1].tolist(), int(prompt))
            for begin, length, prompt in zip(*self.spans(indices), strict=True)
        ]

    def first_tokens(self, indices: np.ndarray) -> np.ndarray:
        """The first id of each example with the limit; it is an input, but not a target."""
        begins, _, _ = self.spans(indices)
        return self.ids[begins]

    def ends_with(self, token: int, indices: np.ndarray) -> np.ndarray:
        """Whether the last id of each example is this one, bool."""
        return self.ids[np.asarray(self._ends[indices]) - 1] == token

"""Encoded pairs in one memory-mapped file: ids end to end, with where each example ends and how long its prompt is.

    ids      [ prompt answer EOS | prompt answer EOS | ... ]   2 bytes each, or 4 for more than 65,536 entries
    ends     [                  ^                    ^     ]   int64, per pair: where its last id stands, plus 1
    lengths  [ inputs, which are all ids but the last      ]   int32, per pair
    prompts  [ tokens of the prompt                        ]   int32, per pair

Raw numbers, no pickle. A store holds every pair of its table, whole; what a split or a limit leaves out is left out
when it is read.
"""

from collections.abc import Iterable
from contextlib import ExitStack
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from qa_lm.data.cache import read_meta
from qa_lm.data.encoding import Example, PromptTemplate, encode_pairs
from qa_lm.data.pairs import Pair
from qa_lm.data.tokenizer import TextTokenizer
from qa_lm.errors import UserError

DTYPES = ("uint16", "uint32")
FILES = ("ids.bin", "ends.bin", "lengths.bin", "prompts.bin")


def write_store(
    folder: Path, batches: Iterable[list[Pair]], tokenizer: TextTokenizer, template: PromptTemplate
) -> dict[str, Any]:
    """Encode batches of pairs and write them as they come.

    Returns:
        dtype: the type of an id.
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


class EncodedPairs:
    """The examples of a store, none with more inputs than a limit.

    A longer one loses tokens from the front of its prompt; the answer and its EOS are never cut.

    Args:
        folder: a folder that `write_store` filled.
        limit: most inputs of an example (its ids but the last).
    """

    def __init__(self, folder: Path, limit: int) -> None:
        self.folder, self.limit = folder, limit
        name = read_meta(folder)["dtype"]
        if name not in DTYPES:
            raise UserError(f"{folder}: is no store of encoded pairs: its ids are {name}; delete it")
        dtype = np.dtype(name)
        kinds = (dtype, np.dtype(np.int64), np.dtype(np.int32), np.dtype(np.int32))
        self.ids, self._ends, self._lengths, self._prompts = (
            np.memmap(folder / name, kind, "r") for name, kind in zip(FILES, kinds, strict=True)
        )

    def __reduce__(self) -> tuple[Any, ...]:
        """A worker process opens the files again instead of getting a copy of them."""
        return EncodedPairs, (self.folder, self.limit)

    def __len__(self) -> int:
        return len(self._prompts)

    def full_lengths(self, indices: np.ndarray) -> np.ndarray:
        """Inputs of each example as it was written, whatever the limit, int32."""
        return np.asarray(self._lengths[indices])

    def answer_lengths(self, indices: np.ndarray) -> np.ndarray:
        """Tokens of each answer, its EOS included, int32."""
        return self.full_lengths(indices) + 1 - np.asarray(self._prompts[indices])

    def prompt_lengths(self, indices: np.ndarray) -> np.ndarray:
        """Tokens of each prompt within the limit, int32."""
        return self.lengths(indices) + 1 - self.answer_lengths(indices)

    def lengths(self, indices: np.ndarray) -> np.ndarray:
        """Inputs of each example within the limit, int32."""
        return np.minimum(self.full_lengths(indices), np.int32(self.limit))

    def spans(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Where the first input stands in `ids`, how many inputs there are, and how many tokens the prompt has."""
        lengths = self.lengths(indices)
        return np.asarray(self._ends[indices]) - 1 - lengths, lengths, self.prompt_lengths(indices)

    def examples(self, indices: np.ndarray) -> list[Example]:
        """Some examples as lists of ids."""
        return [
            Example(self.ids[begin : begin + length + 1].tolist(), int(prompt))
            for begin, length, prompt in zip(*self.spans(indices), strict=True)
        ]

    def first_tokens(self, indices: np.ndarray) -> np.ndarray:
        """The first id of each example within the limit, which is an input and no target."""
        begins, _, _ = self.spans(indices)
        return self.ids[begins]

    def ends_with(self, token: int, indices: np.ndarray) -> np.ndarray:
        """Whether the last id of each example is this one, bool."""
        return self.ids[np.asarray(self._ends[indices]) - 1] == token

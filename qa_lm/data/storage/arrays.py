"""Arrays with a number for each pair. Large ones are in files, so that memory does not grow with the number of pairs.

An array of more than `IN_MEMORY` bytes is mapped from a file without a name, which the system deletes with the array.
Its pages can be written to disk and dropped at any time. Functions here work block by block, and return the same
numbers as NumPy's.
"""

import errno
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np

from qa_lm.errors import UserError

IN_MEMORY = 1 << 21
"""Maximum bytes of an array without a file."""
BLOCK = 1 << 18
"""Number of pairs processed at once; a multiple of 8."""
_folder: Path | None = None


def keep_in(folder: Path) -> None:
    """Keep the files of later arrays in this folder, created if it does not exist, instead of the system's folder for
    temporary files, which is in memory on some systems."""
    global _folder  # a place on this machine, like `tempfile.tempdir`
    _folder = folder


def blocks(count: int) -> Iterator[slice]:
    """Slices of at most `BLOCK` places that cover `count` of them."""
    return (slice(begin, min(begin + BLOCK, count)) for begin in range(0, count, BLOCK))


def zeros(count: int, dtype: Any) -> np.ndarray:
    """An array of zeros, (count,).

    Raises:
        UserError: the disk is full.
    """
    size = count * np.dtype(dtype).itemsize
    if size <= IN_MEMORY:
        return np.zeros(count, dtype)
    with _file() as file:
        try:
            _reserve(file, size)
        except OSError as error:
            raise _cannot_write(error) from None
        return np.memmap(file, dtype, "r+", shape=(count,)).view(np.ndarray)


def joined(parts: Iterable[np.ndarray], dtype: Any) -> np.ndarray:
    """All parts as one array.

    Raises:
        UserError: the disk is full.
    """
    gathered = Gathered(dtype)
    for part in parts:
        gathered.add(part)
    return gathered.array()


class Gathered:
    """Collects the parts of an array whose size is not known.

    Args:
        dtype: dtype of the array.
    """

    def __init__(self, dtype: Any) -> None:
        self.dtype, self.count = np.dtype(dtype), 0
        self._parts: list[np.ndarray] = []
        self._file: IO[bytes] | None = None

    def add(self, part: np.ndarray) -> None:
        """Append numbers."""
        self.count += len(part)
        if self._file is None and self.count * self.dtype.itemsize <= IN_MEMORY:
            self._parts.append(part.astype(self.dtype))
            return
        try:
            if self._file is None:
                self._file = _file()
            for each in (*self._parts, part):
                for block in blocks(len(each)):
                    self._file.write(np.ascontiguousarray(each[block], self.dtype).data)
        except OSError as error:
            raise _cannot_write(error) from None
        self._parts.clear()

    def array(self) -> np.ndarray:
        """All numbers; nothing can be added afterwards."""
        if self._file is None:
            return np.concatenate([np.zeros(0, self.dtype), *self._parts])
        with self._file as file:
            try:
                file.flush()
            except OSError as error:
                raise _cannot_write(error) from None
            return np.memmap(file, self.dtype, "r+", shape=(self.count,)).view(np.ndarray)


def numbered(count: int, dtype: Any = np.int32) -> np.ndarray:
    """The places from 0 to `count`, as `np.arange`."""
    return joined((np.arange(block.start, block.stop) for block in blocks(count)), dtype)


def each_block(function: Callable[[np.ndarray], np.ndarray], numbers: np.ndarray, dtype: Any) -> np.ndarray:
    """`function(numbers)` for a function whose result has a number for each one, (numbers,)."""
    if len(numbers) <= BLOCK:
        return np.asarray(function(numbers), dtype)
    return joined((function(numbers[block]) for block in blocks(len(numbers))), dtype)


def where(count: int, wanted: Callable[[slice], np.ndarray]) -> np.ndarray:
    """Places from 0 to `count` for which `wanted`, called with slices, is true, ascending, int32."""
    return joined((np.flatnonzero(wanted(block)) + block.start for block in blocks(count)), np.int32)


def ascending(sides: Iterable[np.ndarray], count: int) -> np.ndarray:
    """The places of all sides, each of them once, int32; they are below `count`."""
    is_used = zeros(count, bool)
    for side in sides:
        for block in blocks(len(side)):
            is_used[side[block]] = True
    return where(count, lambda block: is_used[block])


def counted(numbers: np.ndarray) -> np.ndarray:
    """Number of occurrences of each integer from 0, as `np.bincount`, int64."""
    counts = np.zeros(0, np.int64)
    for block in blocks(len(numbers)):
        more = np.bincount(numbers[block], minlength=len(counts))
        more[: len(counts)] += counts
        counts = more
    return counts


def order_of(numbers: np.ndarray) -> np.ndarray:
    """Places that sort small integers from 0; equal ones keep their order, int32."""
    if len(numbers) <= BLOCK:
        return np.argsort(numbers, kind="stable").astype(np.int32)
    counts = counted(numbers)
    next_place = np.cumsum(counts) - counts  # of each number
    order = zeros(len(numbers), np.int32)
    for block in blocks(len(numbers)):
        part = numbers[block]
        by = np.argsort(part, kind="stable")
        here = np.bincount(part, minlength=len(counts))
        begins = np.cumsum(here) - here
        order[(next_place - begins)[part[by]] + np.arange(len(by))] = by + block.start
        next_place += here
    return order


def shuffled(count: int, generator: np.random.Generator) -> np.ndarray:
    """`generator.permutation(count)`."""
    order = numbered(count, np.int64)
    generator.shuffle(order)
    return order


def _file() -> IO[bytes]:
    folder = _folder
    if folder is not None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            return tempfile.TemporaryFile(dir=folder)
        except OSError:
            pass  # a cache that is only read
    return tempfile.TemporaryFile()


def _reserve(file: IO[bytes], size: int) -> None:
    """Reserve the space, where the system can: a full disk would kill the process when a mapped page is written."""
    try:
        os.posix_fallocate(file.fileno(), 0, size)
    except (AttributeError, OSError) as error:  # not on macOS and Windows, nor on every file system
        if isinstance(error, OSError) and error.errno not in (errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL):
            raise
        file.truncate(size)


def _cannot_write(error: OSError) -> UserError:
    place = _folder or tempfile.gettempdir()
    return UserError(
        f"{place}: the order of the pairs cannot be written: {error.strerror or error}\n"
        "Choose another folder with data.cache=FOLDER, or for data.cache=off with the environment variable TMPDIR"
    )

"""Several large files of pairs are read side by side, each by a process of its own (`qa_lm.data.storage.worker`).

The result does not depend on the processes: the pairs are taken in the order of the files, and the error is that of the
first file that has one. The processes are programs of their own and no copies of this one: it may have threads, and a
script that trains from Python need not protect its main module.
"""

import os
import pickle
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from threading import Lock

import qa_lm
from qa_lm.data.readers.reading import PairReader, Source
from qa_lm.data.storage.pieces import read_piece
from qa_lm.data.table import Chunk, chunks_of
from qa_lm.errors import UserError

LARGE = 16 << 20
"""Minimum bytes of a file that gets a process. It is read in about a second and a half, three times as long as a
process takes to start."""
STREAMED = (".jsonl", ".csv", ".tsv", ".parquet")
"""Formats of such files; the others are read whole, so that several at once would need more memory."""


def read_chunks(reader: PairReader, folder: Path) -> Iterator[Chunk]:
    """Iterate over the pairs of all sources, in order; `reader` receives the findings.

    Args:
        reader: a reader that has read nothing yet.
        folder: folder for the pairs of files that are read ahead; empty at the end.

    Raises:
        UserError: see `PairReader.pairs`.
    """
    large = [number for number, source in enumerate(reader.sources) if _is_large(source)]
    processes = min(len(large), _cores())
    if processes < 2:
        yield from chunks_of(reader.pairs())
        return
    reader.check()
    with _Processes(processes, reader, folder) as pool:
        pieces = {number: pool.submit(number) for number in large}
        for number in range(len(reader.sources)):
            if number in pieces:
                piece, found = pieces.pop(number).result()
                yield from read_piece(piece, number)
                shutil.rmtree(piece)
                reader.add(found)
            else:
                yield from chunks_of(reader.pairs_of(number))
    reader.conclude()


def _is_large(source: Source) -> bool:
    try:
        return source.suffix in STREAMED and source.path is not None and source.path.stat().st_size >= LARGE
    except OSError:  # reading it gives the error
        return False


def _cores() -> int:
    """Number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class _Processes:
    """A number of processes that read files, ended with this context."""

    def __init__(self, count: int, reader: PairReader, folder: Path) -> None:
        self.reader = reader
        self.folder = Path(tempfile.mkdtemp(dir=folder, prefix="pieces."))
        self.threads = ThreadPoolExecutor(count)  # each waits for a process
        self.running: set[subprocess.Popen[bytes]] = set()
        self.lock, self.ended = Lock(), False

    def __enter__(self) -> "_Processes":
        return self

    def __exit__(self, *_: object) -> None:
        with self.lock:
            self.ended = True
            for process in self.running:
                process.kill()
        self.threads.shutdown(cancel_futures=True)
        shutil.rmtree(self.folder, ignore_errors=True)

    def submit(self, number: int) -> "Future[tuple[Path, PairReader]]":
        """Read a source as soon as a process is free; the result is the folder of its pairs, and its reader."""
        return self.threads.submit(self._read, number)

    def _read(self, number: int) -> tuple[Path, PairReader]:
        source, piece = self.reader.sources[number], self.folder / str(number)
        piece.mkdir()
        # -P: a file in the current folder must not replace a module.
        command = [sys.executable, "-P", "-m", "qa_lm.data.storage.worker", str(piece)]
        package = str(Path(qa_lm.__file__).resolve().parent.parent)
        paths = os.pathsep.join([package, *filter(None, [os.environ.get("PYTHONPATH")])])
        pipe = subprocess.PIPE
        with self.lock:
            if self.ended:
                raise RuntimeError("reading has ended")
            process = subprocess.Popen(
                command, stdin=pipe, stdout=pipe, stderr=pipe, env=os.environ | {"PYTHONPATH": paths}
            )
            self.running.add(process)
        answer, errors = process.communicate(pickle.dumps((source, self.reader.reading)))
        with self.lock:
            self.running.remove(process)
        if process.returncode < 0:
            reason = "its process was killed; the memory may be full"
            raise UserError(f"{source.name}: cannot be read: {reason} (signal {-process.returncode})")
        if process.returncode:
            raise RuntimeError(f"{source.name}: {errors.decode(errors='replace')}")
        found = pickle.loads(answer)  # from the process that was started here
        if isinstance(found, Exception):
            raise found
        return piece, found

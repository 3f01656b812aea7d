"""A process that reads one file of pairs: `python -P -m qa_lm.data.storage.worker FOLDER`.

It gets the file and how to read it on its standard input, leaves the pairs in FOLDER, and answers on its standard
output with its reader, which holds the findings, or with the error to show. Both are pickled by this program alone.
"""

import gc
import os
import pickle
import signal
import sys
from pathlib import Path

from qa_lm.data.readers.reading import PairReader, Reading, Source
from qa_lm.data.storage.pieces import write_piece
from qa_lm.data.table import chunks_of
from qa_lm.errors import UserError


def main() -> None:
    """Read the file."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C reaches the starting process too, which says so
    gc.disable()  # see `qa_lm.data.cache`
    source, reading = pickle.load(sys.stdin.buffer)  # from the process that started this one
    with os.fdopen(os.dup(1), "wb") as answer:
        os.dup2(2, 1)  # what libraries print is not the answer
        pickle.dump(read(source, reading, Path(sys.argv[1])), answer)


def read(source: Source, reading: Reading, folder: Path) -> PairReader | UserError | OSError:
    """Read a file into a folder; returns the reader, or the error."""
    reader = PairReader([source], reading)
    try:
        write_piece(folder, chunks_of(reader.pairs_of(0)))
    except (UserError, OSError) as error:  # also a full disk
        return error
    return reader


if __name__ == "__main__":
    main()

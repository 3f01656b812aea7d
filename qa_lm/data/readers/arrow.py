"""Read Arrow tables of pairs: Parquet files by pyarrow, and data sets of the Hugging Face hub by the optional package
`datasets`."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet

from qa_lm.data.readers.files import seekable
from qa_lm.data.readers.problems import BadLine, Found
from qa_lm.errors import UserError, first_line

LONGEST_BYTES = 4096
"""Mean size of a value up to which a column of bytes may be text."""
NO_TEXT = b"\xff"


def read_parquet(path: Path) -> Iterator[Found]:
    """Read the rows of a Parquet file, counted from 1."""
    row = 1
    with seekable(path) as source:
        try:
            parquet = pa.parquet.ParquetFile(source)
            names, pictures = _text_columns(parquet)
            for batch in parquet.iter_batches(batch_size=4096, columns=names):
                for record in _readable(batch).to_pylist():
                    yield row, record | pictures if pictures else record
                    row += 1
        except (pa.ArrowException, OSError, ValueError, OverflowError) as error:
            reason = str(error).strip().splitlines() or [type(error).__name__]
            raise BadLine(row, f"not Parquet: {reason[0][:200]}", fatal=True) from None


def _text_columns(parquet: pa.parquet.ParquetFile) -> tuple[list[str], dict[str, object]]:
    """The columns to read, and the columns of images and other large binary values, which are not read: each of their
    values is replaced by bytes that are not text."""
    schema = parquet.schema_arrow
    sizes = {each.name: _mean_bytes(parquet, each.name) for each in schema if _is_bytes(each.type)}
    pictures = [name for name, size in sizes.items() if size > LONGEST_BYTES]
    return [name for name in schema.names if name not in pictures], dict.fromkeys(pictures, NO_TEXT)


def _mean_bytes(parquet: pa.parquet.ParquetFile, column: str) -> float:
    """Mean size of the first values of a column. The metadata are not used: in a damaged file, an invalid size there
    raises a C++ exception that pyarrow does not catch, which ends the process."""
    batch = next(parquet.iter_batches(batch_size=64, columns=[column]), None)
    return batch.nbytes / len(batch) if batch else 0.0


def _readable(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Drop columns of dates and times that Python cannot represent."""
    for name in [each.name for each in batch.schema if pa.types.is_temporal(each.type)]:
        try:
            batch[name].to_pylist()
        except (ValueError, OverflowError, pa.ArrowException):
            batch = batch.drop_columns([name])
    return batch


def _is_bytes(kind: pa.DataType) -> bool:
    types = pa.types
    return types.is_binary(kind) or types.is_large_binary(kind) or types.is_fixed_size_binary(kind)


def read_hub(name: str, subset: str | None, split: str) -> Iterator[Found]:
    """Iterate over the records of a data set, each with its number from 1 in place of a line.

    Args:
        name: name on the hub, such as "squad", or a local folder.
        subset: configuration of the data set, if it has several.
        split: "train", "validation", ...

    Raises:
        UserError: `datasets` is not installed, or the data set cannot be loaded.
    """
    try:
        import datasets
    except ImportError:
        raise UserError(
            f"data.hub={name}: needs the package datasets: .venv/bin/pip install datasets", "data.hub"
        ) from None
    datasets.disable_progress_bars()
    try:
        loaded: Any = datasets.load_dataset(name, subset, split=split)
    except Exception as error:  # errors of many libraries: no network, no such name, code that would have to be run
        hint = "" if Path(name).is_dir() else "\nIs there a network? A file that was downloaded is read by data.path="
        raise UserError(f"data.hub={name}: cannot be loaded: {first_line(error)}{hint}", "data.hub") from None
    yield from enumerate(loaded, start=1)

"""Read a data set of the Hugging Face hub, or its local folder, with the optional package `datasets`."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from qa_lm.data.readers.formats import Found
from qa_lm.errors import UserError, first_line


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

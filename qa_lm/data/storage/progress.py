"""Progress of long work on a terminal."""

from collections.abc import Iterator
from typing import TypeVar

from tqdm import tqdm

T = TypeVar("T")


def with_progress(items: Iterator[T], description: str, unit: str) -> Iterator[T]:
    """Iterate with a progress bar on a terminal, shown after two seconds."""
    return iter(tqdm(items, description, unit=f" {unit}", unit_scale=True, leave=False, delay=2, disable=None))

"""Progress of long work on a terminal."""

from collections.abc import Callable, Iterator
from typing import TypeVar

from tqdm import tqdm

T = TypeVar("T")


def with_progress(
    items: Iterator[T], description: str, unit: str, size: Callable[[T], int] = lambda _: 1
) -> Iterator[T]:
    """Iterate with a progress bar on a terminal, shown after two seconds.

    Args:
        items: what to iterate over.
        description: what is done.
        unit: what is counted.
        size: how many units an item is.
    """
    with tqdm(desc=description, unit=f" {unit}", unit_scale=True, leave=False, delay=2, disable=None) as bar:
        for item in items:
            yield item
            bar.update(size(item))

"""How many recordings go through a network at a time."""

import math
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

Item = TypeVar("Item")


def limits(batch_size: int | None, batch_seconds: float | None) -> tuple[int, float]:
    """
    Read what a user said of batches.

    Args:
        batch_size: how many recordings at most; if not given, one, or any number where `batch_seconds` is the limit.
        batch_seconds: how many seconds of audio at most, if that is a limit.

    Returns:
        How many at most, how many seconds at most.
    """
    if batch_size is None:
        batch_size = 1 if batch_seconds is None else sys.maxsize
    return batch_size, math.inf if batch_seconds is None else batch_seconds


def batches(
    items: Iterable[Item], length: Callable[[Item], float], count: int, total: float = math.inf
) -> Iterator[list[Item]]:
    """
    Put items that follow each other into batches, each as soon as no further item can belong to it.

    Args:
        items: what is batched, taken as it is needed.
        length: of an item.
        count: how many items at most.
        total: how long a batch may be with all of its items padded to the longest; an item that is longer is alone.

    Returns:
        Lists of at least one item.
    """
    batch: list[Item] = []
    longest = 0.0
    for item in items:
        own = length(item)
        if batch and (len(batch) + 1) * max(longest, own) > total:
            yield batch
            batch, longest = [], 0.0
        batch.append(item)
        del item  # hours of audio, perhaps, for whose batch somebody else answers
        longest = max(longest, own)
        if len(batch) >= count or (len(batch) + 1) * longest > total:
            yield batch
            batch, longest = [], 0.0
    if batch:
        yield batch


__all__ = ["batches", "limits"]

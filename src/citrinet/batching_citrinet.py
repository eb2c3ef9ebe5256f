"""Batching by number of items and by total length."""

import math
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

Item = TypeVar("Item")


def limits(batch_size: int | None, batch_seconds: float | None) -> tuple[int, float]:
    """
    Resolve the user's batch options into limits.

    Args:
        batch_size: largest number of recordings; defaults to one, or to no limit if `batch_seconds` is given.
        batch_seconds: largest number of seconds of audio; no limit by default.

    Returns:
        Largest number of recordings, largest number of seconds.
    """
    if batch_size is None:
        batch_size = 1 if batch_seconds is None else sys.maxsize
    return batch_size, math.inf if batch_seconds is None else batch_seconds


def batches(
    items: Iterable[Item], length: Callable[[Item], float], count: int, total: float = math.inf
) -> Iterator[list[Item]]:
    """
    Group consecutive items into batches, each yielded as soon as no further item can fit.

    Args:
        items: items to batch, consumed lazily.
        length: function that gives the length of an item.
        count: largest number of items in a batch.
        total: largest length of a batch with all items padded to the longest; a longer item is a batch by itself.

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
        del item  # it may be hours of audio, and only the batch should hold it
        longest = max(longest, own)
        if len(batch) >= count or (len(batch) + 1) * longest > total:
            yield batch
            batch, longest = [], 0.0
    if batch:
        yield batch


__all__ = ["batches", "limits"]

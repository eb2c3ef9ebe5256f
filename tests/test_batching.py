"""What goes through a network together."""

import math
import sys

import numpy as np
import pytest

from citrinet.batching_citrinet import batches, limits


@pytest.mark.parametrize("count", [1, 3, 1000])
@pytest.mark.parametrize("total", [0.0, 7.5, 40.0, math.inf])
def test_all_items_in_their_order_within_both_limits(count, total):
    lengths = np.random.default_rng(0).exponential(5.0, 200).tolist()
    made = list(batches(lengths, float, count, total))
    assert [length for batch in made for length in batch] == lengths
    for batch, following in zip(made, [*made[1:], None], strict=True):
        assert len(batch) <= count
        assert len(batch) == 1 or len(batch) * max(batch) <= total
        if following is not None and len(batch) < count:  # the next one would have been too much
            assert (len(batch) + 1) * max(*batch, following[0]) > total


def test_a_batch_comes_as_soon_as_it_is_full():
    taken = []

    def items():
        for length in [2.0, 3.0, 3.0, 1.0, 1.0]:
            taken.append(length)
            yield length

    made = batches(items(), float, 2, 8.0)
    assert next(made) == [2.0, 3.0] and taken == [2.0, 3.0]  # by number
    made = batches(items(), float, 9, 6.0)
    taken.clear()
    assert next(made) == [2.0, 3.0] and taken == [2.0, 3.0]  # not even one of the same length fits


def test_limits():
    assert limits(None, None) == (1, math.inf)
    assert limits(8, None) == (8, math.inf)
    assert limits(None, 60.0) == (sys.maxsize, 60.0)
    assert limits(8, 60.0) == (8, 60.0)

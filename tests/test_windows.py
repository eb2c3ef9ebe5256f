"""Windows over features: they cover everything once, and lengths that cannot be are refused."""

import pytest

from citrinet.windows_citrinet import cut_windows

FRAME_S, RATIO = 0.01, 8


@pytest.mark.parametrize(("chunk", "stride"), [(None, None), (10, None), (10, 2), (10, (4, 1)), (0.08, 0), (1, 0)])
@pytest.mark.parametrize("frames", [1, 999, 1000, 12_001, 30_011])
def test_windows_keep_every_frame_once(frames, chunk, stride):
    kept = []
    for start, stop, left, right in cut_windows(frames, FRAME_S, RATIO, chunk, stride):
        logits = -(-(stop - start) // RATIO)
        kept += range(start // RATIO + left, start // RATIO + logits - right)
    assert kept == list(range(-(-frames // RATIO)))


@pytest.mark.parametrize(
    ("chunk", "stride", "message"),
    [
        (-1, None, "`chunk_length_s` must be seconds, 0 or more, got -1"),
        (float("inf"), None, "got inf"),
        (float("nan"), None, "got nan"),
        (10, -1, "`stride_length_s` must be seconds, 0 or more, got -1"),
        (10, (1, float("inf")), "got 1, inf"),
        (10, 6, "must be longer than the strides"),
        (0.01, None, "less than one frame of logits, 0.08 s"),
    ],
)
def test_lengths_that_cannot_be(chunk, stride, message):
    with pytest.raises(ValueError, match=message):
        cut_windows(30_000, FRAME_S, RATIO, chunk, stride)

"""Windows over long recordings: what covers them, and what is no window."""

import math

import pytest

from citrinet.windows_citrinet import cut_windows

FRAME_S, RATIO = 0.01, 8


@pytest.mark.parametrize("frames", [1, 8, 999, 3000, 12_001, 100_003])
@pytest.mark.parametrize(
    ("chunk", "stride"), [(None, None), (0, None), (10, None), (10, (0, 0)), (5.3, 1.1), (7, [0, 2])]
)
def test_the_parts_that_are_kept_follow_each_other(frames, chunk, stride):
    windows = cut_windows(frames, FRAME_S, RATIO, chunk, stride)
    position = 0
    for start, stop, left, right in windows:
        assert start % RATIO == 0 and start // RATIO + left == position
        position = math.ceil(stop / RATIO) - right
    assert windows[0][0] == 0 and windows[-1][1] == frames and position == math.ceil(frames / RATIO)


@pytest.mark.parametrize("frames", [5, 50_000])
@pytest.mark.parametrize(
    ("chunk", "stride", "said"),
    [
        (-1, None, "`chunk_length_s` must be seconds"),
        (math.nan, None, "`chunk_length_s` must be seconds"),
        (math.inf, None, "`chunk_length_s` must be seconds"),
        (1e-9, None, "less than one output of the network"),
        (0.03, None, "less than one output of the network"),
        (10, -1, "`stride_length_s` must be seconds"),
        (10, (1, -0.5), "`stride_length_s` must be seconds"),
        (10, math.nan, "`stride_length_s` must be seconds"),
        (10, (0, math.inf), "`stride_length_s` must be seconds"),
    ],
)
def test_windows_that_are_none(frames, chunk, stride, said):
    with pytest.raises(ValueError, match=said):
        cut_windows(frames, FRAME_S, RATIO, chunk, stride)


@pytest.mark.parametrize("stride", [5, 7, (0, 10), (9, 1)])
def test_overlaps_that_leave_nothing(stride):
    with pytest.raises(ValueError, match="must be longer than the strides"):
        cut_windows(50_000, FRAME_S, RATIO, 10, stride)

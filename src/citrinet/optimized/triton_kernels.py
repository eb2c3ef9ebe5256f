# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator, attr-defined, assignment"
# ruff: noqa: RUF005 (Triton's language has no starred tuples)
"""
Triton kernels for the operations between matrix products, on hidden states (B, T, C) in their memory layout.

Each reads its input once and writes its output once: no mask, transposed copy or intermediate sum goes through memory.
Sums are in float32 for every dtype.
"""

import torch
import triton
import triton.language as tl

# Depthwise kernels keep sums in registers: each thread computes `ROWS` consecutive outputs of a few channels. It loads
# a frame once for all of them and for a group of up to `GROUP` taps. Loops over both are unrolled. Kernel sizes with
# the same group share a program.
ROWS, CHUNKS, BLOCK_C, GROUP, WARPS = 8, 4, 128, 8, 2
SPAN = 1024  # frames at most that are summed into one partial gradient of a tap


@triton.jit(do_not_specialize=["T", "T_OUT", "K"])
def _depthwise_kernel(
    x,
    taps,
    lengths,
    y,
    T,
    T_OUT,
    K,
    C: tl.constexpr,
    GROUP: tl.constexpr,
    STRIDE: tl.constexpr,
    MASKED: tl.constexpr,
    GRADIENT: tl.constexpr,
    ROWS: tl.constexpr,
    CHUNKS: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    row = tl.program_id(2)
    first = (tl.program_id(1) * CHUNKS + tl.arange(0, CHUNKS))[:, None] * ROWS
    channels = (tl.program_id(0) * BLOCK_C + tl.arange(0, BLOCK_C))[None, :]
    in_channels = channels < C
    end, stop = T, T_OUT
    if MASKED:
        if GRADIENT:  # of frames beyond an utterance, which are not read, it is zero
            stop = tl.load(lengths + row)
        else:
            end = tl.minimum(tl.load(lengths + row), T)
    x += row.to(tl.int64) * T * C
    totals = ()
    for _ in tl.static_range(ROWS):
        totals = totals + (tl.zeros((CHUNKS, BLOCK_C), dtype=tl.float32),)
    for tap in range(0, K, GROUP):
        weights = ()
        # One address for each chunk, though they are the same: weights then lie in registers as frames do.
        places = taps + tap * C + channels + tl.zeros((CHUNKS, 1), dtype=tl.int32)
        for index in tl.static_range(GROUP):
            weight = tl.load(places + index * C, mask=in_channels & (index < K - tap), other=0.0)
            weights = weights + (weight.to(tl.float32),)
        start = first * STRIDE + tap - K // 2
        places = x + start * C + channels
        for frame in tl.static_range((ROWS - 1) * STRIDE + GROUP):
            inside = in_channels & (frame >= -start) & (frame < end - start)
            numbers = tl.load(places + frame * C, mask=inside, other=0.0).to(tl.float32)
            added = ()
            for output in tl.static_range(ROWS):
                if frame >= output * STRIDE and frame < output * STRIDE + GROUP:
                    added = added + (totals[output] + numbers * weights[frame - output * STRIDE],)
                else:
                    added = added + (totals[output],)
            totals = added
    places = y + row.to(tl.int64) * T_OUT * C + first * C + channels
    for output in tl.static_range(ROWS):
        total = tl.where(output < stop - first, totals[output], 0.0)
        tl.store(places + output * C, total.to(y.dtype.element_ty), mask=in_channels & (output < T_OUT - first))


def depthwise(
    hidden_states: torch.Tensor, taps: torch.Tensor, lengths: torch.Tensor | None, stride: int
) -> torch.Tensor:
    """
    Depthwise convolution over time, padded by half a kernel, that reads frames beyond an utterance as zeros.

    Args:
        hidden_states: (B, T, C), contiguous.
        taps: (K, C), contiguous; K is odd.
        lengths: (B,) int32, valid frames of each utterance; `None` means all.
        stride: frames from one output to the next.

    Returns:
        (B, ceil(T / stride), C), in the dtype of `hidden_states`.
    """
    return _convolved(hidden_states, taps, lengths, stride)


def _convolved(
    hidden_states: torch.Tensor, taps: torch.Tensor, lengths: torch.Tensor | None, stride: int, gradient: bool = False
) -> torch.Tensor:
    batch, frames, channels = hidden_states.shape
    kernel, out_frames = len(taps), -(-frames // stride)
    output = hidden_states.new_empty(batch, out_frames, channels)
    grid = (triton.cdiv(channels, BLOCK_C), triton.cdiv(out_frames, ROWS * CHUNKS), batch)
    _depthwise_kernel[grid](
        hidden_states,
        taps,
        hidden_states if lengths is None else lengths,
        output,
        frames,
        out_frames,
        kernel,
        C=channels,
        GROUP=_group(kernel),
        STRIDE=stride,
        MASKED=lengths is not None,
        GRADIENT=gradient,
        ROWS=ROWS,
        CHUNKS=CHUNKS,
        BLOCK_C=BLOCK_C,
        num_warps=WARPS,
    )
    return output


def _group(kernel: int) -> int:
    """Size of groups of taps: as equal as possible, at most `GROUP`."""
    groups = -(-kernel // GROUP)
    return -(-kernel // groups)


@triton.jit(do_not_specialize=["T", "T_OUT"])
def _depthwise_input_kernel(
    gradient,
    taps,
    lengths,
    output,
    T,
    T_OUT,
    C,
    K: tl.constexpr,
    STRIDE: tl.constexpr,
    MASKED: tl.constexpr,
    BLOCK_T: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    row = tl.program_id(2)
    frames = tl.program_id(1) * BLOCK_T + tl.arange(0, BLOCK_T)
    channels = tl.program_id(0) * BLOCK_C + tl.arange(0, BLOCK_C)
    in_channels = channels < C
    end = T
    if MASKED:
        end = tl.minimum(tl.load(lengths + row), T)
    gradient += row.to(tl.int64) * T_OUT * C
    total = tl.zeros((BLOCK_T, BLOCK_C), dtype=tl.float32)
    for tap in tl.range(K):
        place = frames + K // 2 - tap  # of the output frame that reads this one with this tap, times the stride
        source = place // STRIDE
        inside = (frames < end) & (place >= 0) & (place % STRIDE == 0) & (source < T_OUT)
        numbers = tl.load(
            gradient + source[:, None] * C + channels[None, :], mask=inside[:, None] & in_channels[None, :], other=0.0
        )
        weight = tl.load(taps + tap * C + channels, mask=in_channels, other=0.0)
        total += numbers.to(tl.float32) * weight.to(tl.float32)[None, :]
    output += row.to(tl.int64) * T * C
    tl.store(
        output + frames[:, None] * C + channels[None, :],
        total.to(output.dtype.element_ty),
        mask=(frames < T)[:, None] & in_channels[None, :],
    )


@triton.jit(do_not_specialize=["BATCH", "COUNT", "T", "T_OUT", "K"])
def _depthwise_taps_kernel(
    x,
    gradient,
    lengths,
    output,
    BATCH,
    COUNT,
    T,
    T_OUT,
    K,
    C: tl.constexpr,
    GROUP: tl.constexpr,
    STRIDE: tl.constexpr,
    MASKED: tl.constexpr,
    SPAN: tl.constexpr,
    ROWS: tl.constexpr,
    CHUNKS: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    channels = (tl.program_id(0) * BLOCK_C + tl.arange(0, BLOCK_C))[None, :]
    in_channels = channels < C
    tap = tl.program_id(1) * GROUP
    part = tl.program_id(2)
    spans = tl.cdiv(T_OUT, SPAN)
    first_row = part // spans * COUNT
    first = part % spans * SPAN
    x += first_row.to(tl.int64) * T * C
    gradient += first_row.to(tl.int64) * T_OUT * C
    totals = ()
    for _ in tl.static_range(GROUP):
        totals = totals + (tl.zeros((CHUNKS, BLOCK_C), dtype=tl.float32),)
    for row in range(first_row, tl.minimum(first_row + COUNT, BATCH)):
        end = T
        if MASKED:
            end = tl.minimum(tl.load(lengths + row), T)
        # With these taps, later output frames read frames beyond the utterance.
        stop = tl.minimum(tl.minimum(first + SPAN, T_OUT), tl.cdiv(end + K // 2 - tap, STRIDE))
        for block in range(first, stop, CHUNKS * ROWS):
            frames = block + tl.arange(0, CHUNKS)[:, None] * ROWS
            places = gradient + frames * C + channels
            slopes = ()
            for index in tl.static_range(ROWS):
                slope = tl.load(places + index * C, mask=in_channels & (index < stop - frames), other=0.0)
                slopes = slopes + (slope.to(tl.float32),)
            start = frames * STRIDE + tap - K // 2
            places = x + start * C + channels
            for frame in tl.static_range((ROWS - 1) * STRIDE + GROUP):
                inside = in_channels & (frame >= -start) & (frame < end - start)
                numbers = tl.load(places + frame * C, mask=inside, other=0.0).to(tl.float32)
                added = ()
                for index in tl.static_range(GROUP):
                    if frame >= index and frame - index <= (ROWS - 1) * STRIDE and (frame - index) % STRIDE == 0:
                        added = added + (totals[index] + numbers * slopes[(frame - index) // STRIDE],)
                    else:
                        added = added + (totals[index],)
                totals = added
        x += T * C
        gradient += T_OUT * C
    places = output + (part.to(tl.int64) * K + tap) * C + tl.program_id(0) * BLOCK_C + tl.arange(0, BLOCK_C)
    for index in tl.static_range(GROUP):
        stored = (tl.program_id(0) * BLOCK_C + tl.arange(0, BLOCK_C) < C) & (index < K - tap)
        tl.store(places + index * C, tl.sum(totals[index], axis=0), mask=stored)


def depthwise_input_gradient(
    gradient: torch.Tensor, taps: torch.Tensor, lengths: torch.Tensor | None, stride: int, frames: int
) -> torch.Tensor:
    """
    Gradient of the input of [`depthwise`].

    Args:
        gradient: (B, ceil(T / stride), C), contiguous: the gradient of the output.
        taps: (K, C), contiguous.
        lengths: (B,) int32, valid frames of each utterance; `None` means all.
        stride: frames from one output to the next.
        frames: T.

    Returns:
        (B, T, C), in the dtype of `gradient`; zero beyond an utterance.
    """
    if stride == 1:
        return _convolved(gradient, taps.flip(0), lengths, stride, gradient=True)
    batch, out_frames, channels = gradient.shape
    output = gradient.new_empty(batch, frames, channels)
    _depthwise_input_kernel[(triton.cdiv(channels, 128), triton.cdiv(frames, 16), batch)](
        gradient,
        taps,
        gradient if lengths is None else lengths,
        output,
        frames,
        out_frames,
        channels,
        K=len(taps),
        STRIDE=stride,
        MASKED=lengths is not None,
        BLOCK_T=16,
        BLOCK_C=128,
        num_warps=4,
    )
    return output


def depthwise_taps_gradient(
    hidden_states: torch.Tensor, gradient: torch.Tensor, lengths: torch.Tensor | None, stride: int, kernel: int
) -> torch.Tensor:
    """
    Gradient of the taps of [`depthwise`], summed in parts that are always added in the same order.

    Args:
        hidden_states: (B, T, C), contiguous: the input. Frames beyond an utterance are not read.
        gradient: (B, ceil(T / stride), C), contiguous: the gradient of the output.
        lengths: (B,) int32, valid frames of each utterance; `None` means all.
        stride: frames from one output to the next.
        kernel: K, number of taps.

    Returns:
        (K, C) float32.
    """
    batch, frames, channels = hidden_states.shape
    out_frames = gradient.shape[1]
    count = max(SPAN // out_frames, 1)  # short utterances that are summed into one part
    parts, group = triton.cdiv(batch, count) * triton.cdiv(out_frames, SPAN), _group(kernel)
    output = gradient.new_empty(parts, kernel, channels, dtype=torch.float32)
    _depthwise_taps_kernel[(triton.cdiv(channels, BLOCK_C), triton.cdiv(kernel, group), parts)](
        hidden_states,
        gradient,
        hidden_states if lengths is None else lengths,
        output,
        batch,
        count,
        frames,
        out_frames,
        kernel,
        C=channels,
        GROUP=group,
        STRIDE=stride,
        MASKED=lengths is not None,
        SPAN=SPAN,
        ROWS=ROWS,
        CHUNKS=CHUNKS,
        BLOCK_C=BLOCK_C,
        num_warps=WARPS,
    )
    return output.sum(dim=0)


@triton.jit(do_not_specialize=["T"])
def _mean_kernel(x, lengths, y, T, C, MASKED: tl.constexpr, BLOCK_T: tl.constexpr, BLOCK_C: tl.constexpr):
    row = tl.program_id(1)
    channels = tl.program_id(0) * BLOCK_C + tl.arange(0, BLOCK_C)
    in_channels = channels < C
    end = T
    if MASKED:
        end = tl.minimum(tl.load(lengths + row), T)
    x += row.to(tl.int64) * T * C
    total = tl.zeros((BLOCK_T, BLOCK_C), dtype=tl.float32)
    for start in range(0, end, BLOCK_T):
        frames = start + tl.arange(0, BLOCK_T)
        inside = (frames < end)[:, None] & in_channels[None, :]
        total += tl.load(x + frames[:, None] * C + channels[None, :], mask=inside, other=0.0).to(tl.float32)
    mean = tl.sum(total, axis=0) / tl.maximum(end, 1).to(tl.float32)
    tl.store(y + row * C + channels, mean.to(y.dtype.element_ty), mask=in_channels)


def masked_mean(hidden_states: torch.Tensor, lengths: torch.Tensor | None) -> torch.Tensor:
    """
    Mean over the valid frames of each utterance, zero for an utterance without any.

    Args:
        hidden_states: (B, T, C), contiguous.
        lengths: (B,) int32, valid frames of each utterance; `None` means all.

    Returns:
        (B, C), in the dtype of `hidden_states`.
    """
    batch, frames, channels = hidden_states.shape
    output = hidden_states.new_empty(batch, channels)
    block_c = 32 if batch < 32 else 64  # smaller blocks keep a GPU busy with few utterances
    _mean_kernel[(triton.cdiv(channels, block_c), batch)](
        hidden_states,
        hidden_states if lengths is None else lengths,
        output,
        frames,
        channels,
        MASKED=lengths is not None,
        BLOCK_T=64,
        BLOCK_C=block_c,
        num_warps=4,
    )
    return output


@triton.jit(do_not_specialize=["T"])
def _gate_kernel(
    x,
    residual,
    gate,
    y,
    T,
    C,
    RESIDUAL: tl.constexpr,
    RELU: tl.constexpr,
    BLOCK_T: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    row = tl.program_id(2)
    frames = tl.program_id(1) * BLOCK_T + tl.arange(0, BLOCK_T)
    channels = (tl.program_id(0) * BLOCK_C + tl.arange(0, BLOCK_C))[None, :]
    in_channels = channels < C
    inside = (frames < T)[:, None] & in_channels
    place = row.to(tl.int64) * T * C + frames[:, None] * C + channels
    logits = tl.load(gate + row * C + channels, mask=in_channels, other=0.0).to(tl.float32)
    total = tl.load(x + place, mask=inside, other=0.0).to(tl.float32) * (1.0 / (1.0 + tl.exp(-logits)))
    if RESIDUAL:
        total += tl.load(residual + place, mask=inside, other=0.0).to(tl.float32)
    if RELU:
        total = tl.where(total < 0.0, 0.0, total)  # unlike a maximum it keeps NaN, as PyTorch's ReLU does
    tl.store(y + place, total.to(y.dtype.element_ty), mask=inside)


def gated_sum(
    hidden_states: torch.Tensor, residual: torch.Tensor | None, gate: torch.Tensor, relu: bool
) -> torch.Tensor:
    """
    `residual + hidden_states * sigmoid(gate)`, optionally followed by a ReLU.

    Args:
        hidden_states: (B, T, C), contiguous.
        residual: (B, T, C), contiguous, or `None`.
        gate: (B, C), contiguous, before the sigmoid.
        relu: whether to apply a ReLU to the sum.

    Returns:
        (B, T, C), in the dtype of `hidden_states`.
    """
    batch, frames, channels = hidden_states.shape
    output = torch.empty_like(hidden_states)
    block_t, block_c = 16, 256
    _gate_kernel[(triton.cdiv(channels, block_c), triton.cdiv(frames, block_t), batch)](
        hidden_states,
        hidden_states if residual is None else residual,
        gate,
        output,
        frames,
        channels,
        RESIDUAL=residual is not None,
        RELU=relu,
        BLOCK_T=block_t,
        BLOCK_C=block_c,
        num_warps=4,
    )
    return output


__all__ = ["depthwise", "depthwise_input_gradient", "depthwise_taps_gradient", "gated_sum", "masked_mean"]

# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator, attr-defined"
"""
Triton kernels for the operations between matrix products, on hidden states (B, T, C) in their memory layout.

Each reads its input once and writes its output once: no mask, transposed copy or intermediate sum goes through memory.
Sums are in float32 for every dtype.
"""

import torch
import triton
import triton.language as tl

# From this kernel size on, the loop over taps is not unrolled, so that neither the program nor its compile time grows
# with the kernel size.
LOOP_FROM = 25
SPAN = 2048  # frames at most that are summed into one partial gradient of a tap


@triton.jit
def _tap(x, taps, tap, frames, channels, in_channels, end, C, K: tl.constexpr, STRIDE: tl.constexpr):
    """Contribution of one tap to each output: (BLOCK_T, BLOCK_C) float32."""
    source = frames * STRIDE + tap - K // 2
    inside = (source >= 0) & (source < end)
    numbers = tl.load(
        x + source[:, None] * C + channels[None, :], mask=inside[:, None] & in_channels[None, :], other=0.0
    )
    weight = tl.load(taps + tap * C + channels, mask=in_channels, other=0.0)
    return numbers.to(tl.float32) * weight.to(tl.float32)[None, :]


@triton.jit(do_not_specialize=["T", "T_OUT"])
def _depthwise_kernel(
    x,
    taps,
    lengths,
    y,
    T,
    T_OUT,
    C,
    K: tl.constexpr,
    STRIDE: tl.constexpr,
    MASKED: tl.constexpr,
    LOOP: tl.constexpr,
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
    x += row.to(tl.int64) * T * C
    total = tl.zeros((BLOCK_T, BLOCK_C), dtype=tl.float32)
    if LOOP:
        for tap in tl.range(K):
            total += _tap(x, taps, tap, frames, channels, in_channels, end, C, K, STRIDE)
    else:
        for tap in tl.static_range(K):
            total += _tap(x, taps, tap, frames, channels, in_channels, end, C, K, STRIDE)
    y += row.to(tl.int64) * T_OUT * C
    tl.store(
        y + frames[:, None] * C + channels[None, :],
        total.to(y.dtype.element_ty),
        mask=(frames < T_OUT)[:, None] & in_channels[None, :],
    )


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
    batch, frames, channels = hidden_states.shape
    kernel, out_frames = len(taps), -(-frames // stride)
    output = hidden_states.new_empty(batch, out_frames, channels)
    block_t, block_c = 16, 128
    grid = (triton.cdiv(channels, block_c), triton.cdiv(out_frames, block_t), batch)
    _depthwise_kernel[grid](
        hidden_states,
        taps,
        hidden_states if lengths is None else lengths,
        output,
        frames,
        out_frames,
        channels,
        K=kernel,
        STRIDE=stride,
        MASKED=lengths is not None,
        LOOP=kernel >= LOOP_FROM,
        BLOCK_T=block_t,
        BLOCK_C=block_c,
        num_warps=4,
    )
    return output


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


@triton.jit(do_not_specialize=["BATCH", "ROWS", "T", "T_OUT"])
def _depthwise_taps_kernel(
    x,
    gradient,
    lengths,
    output,
    BATCH,
    ROWS,
    T,
    T_OUT,
    C,
    K: tl.constexpr,
    STRIDE: tl.constexpr,
    MASKED: tl.constexpr,
    SPAN: tl.constexpr,
    BLOCK_T: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    channels = tl.program_id(0) * BLOCK_C + tl.arange(0, BLOCK_C)
    tap = tl.program_id(1)
    part = tl.program_id(2)
    in_channels = channels < C
    spans = tl.cdiv(T_OUT, SPAN)
    first_row = part // spans * ROWS
    first = part % spans * SPAN
    x += first_row.to(tl.int64) * T * C
    gradient += first_row.to(tl.int64) * T_OUT * C
    total = tl.zeros((BLOCK_T, BLOCK_C), dtype=tl.float32)
    for row in range(first_row, tl.minimum(first_row + ROWS, BATCH)):
        end = T
        if MASKED:
            end = tl.minimum(tl.load(lengths + row), T)
        # With this tap, later output frames read frames beyond the utterance.
        stop = tl.minimum(tl.minimum(first + SPAN, T_OUT), tl.cdiv(end + K // 2 - tap, STRIDE))
        for start in range(first, stop, BLOCK_T):
            frames = start + tl.arange(0, BLOCK_T)
            source = frames * STRIDE + tap - K // 2
            mask = ((frames < stop) & (source >= 0))[:, None] & in_channels[None, :]
            numbers = tl.load(x + source[:, None] * C + channels[None, :], mask=mask, other=0.0)
            slope = tl.load(gradient + frames[:, None] * C + channels[None, :], mask=mask, other=0.0)
            total += numbers.to(tl.float32) * slope.to(tl.float32)
        x += T * C
        gradient += T_OUT * C
    place = (part.to(tl.int64) * K + tap) * C
    tl.store(output + place + channels, tl.sum(total, axis=0), mask=in_channels)


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
    rows = max(SPAN // out_frames, 1)  # short utterances that are summed into one part
    parts = triton.cdiv(batch, rows) * triton.cdiv(out_frames, SPAN)
    output = gradient.new_empty(parts, kernel, channels, dtype=torch.float32)
    _depthwise_taps_kernel[(triton.cdiv(channels, 128), kernel, parts)](
        hidden_states,
        gradient,
        hidden_states if lengths is None else lengths,
        output,
        batch,
        rows,
        frames,
        out_frames,
        channels,
        K=kernel,
        STRIDE=stride,
        MASKED=lengths is not None,
        SPAN=SPAN,
        BLOCK_T=16,
        BLOCK_C=128,
        num_warps=4,
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


@triton.jit(do_not_specialize=["ROWS", "T"])
def _gate_kernel(
    x,
    residual,
    gate,
    y,
    ROWS,
    T,
    C,
    RESIDUAL: tl.constexpr,
    RELU: tl.constexpr,
    BLOCK_R: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    rows = tl.program_id(1).to(tl.int64) * BLOCK_R + tl.arange(0, BLOCK_R)
    channels = tl.program_id(0) * BLOCK_C + tl.arange(0, BLOCK_C)
    inside = (rows < ROWS)[:, None] & (channels < C)[None, :]
    place = rows[:, None] * C + channels[None, :]
    logits = tl.load(gate + (rows // T)[:, None] * C + channels[None, :], mask=inside, other=0.0).to(tl.float32)
    total = tl.load(x + place, mask=inside, other=0.0).to(tl.float32) / (1.0 + tl.exp(-logits))
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
    block_r, block_c = 8, 256
    _gate_kernel[(triton.cdiv(channels, block_c), triton.cdiv(batch * frames, block_r))](
        hidden_states,
        hidden_states if residual is None else residual,
        gate,
        output,
        batch * frames,
        frames,
        channels,
        RESIDUAL=residual is not None,
        RELU=relu,
        BLOCK_R=block_r,
        BLOCK_C=block_c,
        num_warps=4,
    )
    return output


__all__ = ["depthwise", "depthwise_input_gradient", "depthwise_taps_gradient", "gated_sum", "masked_mean"]

"""
Run the blocks of a network as a CUDA graph: one launch for all, where launches would take longer than the work.

A graph has a fixed shape. Batches are therefore padded to one of a few lengths; the mask excludes the added frames.
"""

import threading
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from transformers.utils import logging

logger = logging.get_logger(__name__)

MAX_GRAPHS = 32  # graphs share one memory pool, but each has its own input and output
RUNS_BEFORE_CAPTURE = 1

Blocks = Iterable[Any]
Output = tuple[torch.Tensor, torch.Tensor | None]


def padded_length(frames: int) -> int:
    """Round up to a multiple of 128 frames, above 2,048 of 256 and so on: by 1/8 at most from 1,024 on."""
    step = max(128, 1 << (frames - 1).bit_length() >> 4)
    return -(-frames // step) * step


def run_in_turn(blocks: Blocks, hidden_states: torch.Tensor, mask: torch.Tensor | None) -> Output:
    """Run blocks one by one: (B, T, F), (B, T) -> (B, T', C), (B, T')."""
    for block in blocks:
        hidden_states, mask = block(hidden_states, mask)
    return hidden_states, mask


@dataclass
class Graph:
    """
    A captured CUDA graph and its buffers.

    Args:
        features: (B, T, F), buffer of the input.
        mask: (B, T) bool, buffer of the mask, True at valid frames.
        output: (B, T', C) and (B, T'), buffers of the output.
        replay: runs the graph.
    """

    features: torch.Tensor
    mask: torch.Tensor
    output: Output
    replay: Callable[[], None]


@dataclass
class Place:
    """Where graphs are captured: a stream of the network's GPU, and a pool of its memory, both the same for all."""

    stream: Any
    pool: Any


def capture(blocks: Blocks, features: torch.Tensor, mask: torch.Tensor, place: Place) -> Graph:
    """
    Capture blocks in a CUDA graph.

    Args:
        blocks: the blocks of a network on a GPU.
        features: (B, T, F), buffer that the graph reads its input from.
        mask: (B, T) bool, buffer of the mask.
        place: where to capture.
    """
    current = torch.cuda.current_stream()
    place.stream.wait_stream(current)
    with torch.cuda.stream(place.stream):  # first-call work, such as compiling kernels, cannot be captured
        run_in_turn(blocks, features, mask)
    current.wait_stream(place.stream)
    graph = torch.cuda.CUDAGraph()
    # `thread_local`: other threads, which read files, may use the GPU meanwhile.
    with torch.cuda.graph(graph, pool=place.pool, stream=place.stream, capture_error_mode="thread_local"):
        output = run_in_turn(blocks, features, mask)
    return Graph(features, mask, output, graph.replay)


class GraphedBlocks:
    """
    Runs blocks as CUDA graphs, one per shape; the least recently used graphs are dropped.

    A graph is captured when its shape comes for the second time: of many files of all lengths, some shapes come once,
    and a capture takes longer than a run. Shapes that come once, large batches, and calls that a graph cannot handle
    run block by block. A copy starts without graphs.
    """

    max_frames = 16384  # in a batch, 160 s of speech
    padded_length = staticmethod(padded_length)

    def __init__(self) -> None:
        self._graphs: OrderedDict[tuple[Any, ...], Graph] = OrderedDict()
        self._met: Counter[tuple[Any, ...]] = Counter()
        self._lock = threading.Lock()  # threads share the input and output of a graph
        self._place: Place | None = None
        self._works = True

    def __reduce__(self) -> tuple[type["GraphedBlocks"], tuple[()]]:
        return GraphedBlocks, ()

    @torch.no_grad()
    def __call__(self, blocks: Blocks, features: torch.Tensor, mask: torch.Tensor | None) -> Output:
        """(B, T, F), (B, T) -> (B, T', C), (B, T')."""
        batch, frames, bins = features.shape
        length = padded_length(frames)
        if not self._works or batch * length > self.max_frames or not self._suits(blocks, features):
            return run_in_turn(blocks, features, mask)
        # Modules as keys, not their names or addresses, because adapters can be replaced.
        adapters = [(adapter, adapter.enabled) for block in blocks for adapter in block.adapters.values()]
        key = (batch, length, bins, features.dtype, features.device, *adapters)
        if self._met[key] < RUNS_BEFORE_CAPTURE:
            self._met[key] += 1
            return run_in_turn(blocks, features, mask)
        with self._lock, torch.cuda.device_of(features):  # type: ignore[no-untyped-call]
            graph = self._graphs.pop(key, None) or self._captured(blocks, features, length)
            if graph is None:
                return run_in_turn(blocks, features, mask)
            self._graphs[key] = graph
            if len(self._graphs) > MAX_GRAPHS:
                self._graphs.popitem(last=False)
            return _replayed(graph, blocks, features, mask)

    @staticmethod
    def _suits(blocks: Blocks, features: torch.Tensor) -> bool:
        """Whether a graph can serve this call: on the default stream of a GPU, without hooks, autocast or compiling."""
        if features.device.type != "cuda" or torch.compiler.is_compiling() or torch.is_autocast_enabled("cuda"):
            return False
        if any(block._forward_hooks or block._forward_pre_hooks for block in blocks):
            return False
        here = torch.cuda.current_stream(features.device) == torch.cuda.default_stream(features.device)
        return here and not torch.cuda.is_current_stream_capturing()

    def _captured(self, blocks: Blocks, features: torch.Tensor, length: int) -> Graph | None:
        # Tensors made in inference mode could not be written to outside of it.
        with torch.inference_mode(False), torch.no_grad():
            batch, _, bins = features.shape
            held = torch.zeros(batch, length, bins, dtype=features.dtype, device=features.device)
            mask = torch.zeros(batch, length, dtype=torch.bool, device=features.device)
            try:
                if self._place is None:
                    self._place = _new_place()
                return capture(blocks, held, mask, self._place)
            except RuntimeError as error:
                reason = str(error).splitlines()[0]
                logger.warning_once(f"CUDA graphs cannot be used here ({reason}): short recordings take longer.")
                self._works = False
                return None


def _new_place() -> Place:
    return Place(torch.cuda.Stream(), torch.cuda.graph_pool_handle())  # type: ignore[no-untyped-call]


def _replayed(graph: Graph, blocks: Blocks, features: torch.Tensor, mask: torch.Tensor | None) -> Output:
    """Replay a graph with these features, and copy its output."""
    frames = features.shape[1]
    graph.features[:, :frames] = features
    graph.mask[:, :frames] = True if mask is None else mask
    graph.mask[:, frames:] = False
    graph.replay()
    for block in blocks:
        frames = -(-frames // block.stride)
    hidden_states, valid = graph.output
    assert valid is not None
    return hidden_states[:, :frames].clone(), None if mask is None else valid[:, :frames].clone()


__all__ = ["GraphedBlocks", "padded_length"]

"""
The blocks of a network as CUDA graphs: one launch for all of them, where launches would take longer than the work.

A graph is of one shape. Batches are therefore padded to one of a few lengths, which the mask makes good.
"""

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from transformers.utils import logging

logger = logging.get_logger(__name__)

MAX_FRAMES = 8192  # of features in a batch: 80 s of speech; beyond them the work takes longer than its launches
MAX_GRAPHS = 16  # they share one pool of memory; its input and its output, each has for itself

Blocks = Iterable[Any]
Output = tuple[torch.Tensor, torch.Tensor | None]


def padded_length(frames: int) -> int:
    """The next multiple of 128 frames, or of 256 or 512 above 2,048 or 4,096: an eighth more at most from 1,024 on."""
    step = max(128, 1 << (frames - 1).bit_length() >> 4)
    return -(-frames // step) * step


def run_in_turn(blocks: Blocks, hidden_states: torch.Tensor, mask: torch.Tensor | None) -> Output:
    """(B, T, F), (B, T) -> (B, T', C), (B, T')."""
    for block in blocks:
        hidden_states, mask = block(hidden_states, mask)
    return hidden_states, mask


@dataclass
class Graph:
    """
    Work that was captured.

    Args:
        features: (B, T, F), where it reads its input.
        mask: (B, T) bool, where it reads which frames are valid.
        output: (B, T', C) and (B, T'), where it writes.
        replay: does the work.
    """

    features: torch.Tensor
    mask: torch.Tensor
    output: Output
    replay: Callable[[], None]


def capture(blocks: Blocks, features: torch.Tensor, mask: torch.Tensor, pool: Any) -> Graph:
    """
    Capture the work of blocks in a CUDA graph.

    Args:
        blocks: those of a network on a GPU.
        features: (B, T, F), where the graph is to read its input.
        mask: (B, T) bool.
        pool: memory that graphs share.
    """
    current, side = torch.cuda.current_stream(), torch.cuda.Stream()  # type: ignore[no-untyped-call]
    side.wait_stream(current)
    with torch.cuda.stream(side):  # what is done once, such as compiling kernels, cannot be captured
        run_in_turn(blocks, features, mask)
    current.wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    # Other threads, which read files, may use the GPU meanwhile.
    with torch.cuda.graph(graph, pool=pool, capture_error_mode="thread_local"):
        output = run_in_turn(blocks, features, mask)
    return Graph(features, mask, output, graph.replay)


class GraphedBlocks:
    """
    Runs blocks as CUDA graphs, captured when a shape is first met; the least recently used go.

    Large batches, and whatever a graph cannot do, run block by block. A copy starts without graphs.
    """

    def __init__(self) -> None:
        self._graphs: OrderedDict[tuple[Any, ...], Graph] = OrderedDict()
        self._lock = threading.Lock()  # a graph has one input and one output, whoever asks
        self._pool: Any = None
        self._works = True

    def __reduce__(self) -> tuple[type["GraphedBlocks"], tuple[()]]:
        return GraphedBlocks, ()

    @torch.no_grad()
    def __call__(self, blocks: Blocks, features: torch.Tensor, mask: torch.Tensor | None) -> Output:
        """(B, T, F), (B, T) -> (B, T', C), (B, T')."""
        batch, frames, bins = features.shape
        length = padded_length(frames)
        if not self._works or batch * length > MAX_FRAMES or not self._suits(blocks, features):
            return run_in_turn(blocks, features, mask)
        # Modules rather than their names or addresses: adapters can be exchanged.
        adapters = [(adapter, adapter.enabled) for block in blocks for adapter in block.adapters.values()]
        key = (batch, length, bins, features.dtype, features.device, *adapters)
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
        """Whether this call can be replayed: on a GPU, in the order of its work, with nothing to be called between."""
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
                if self._pool is None:
                    self._pool = _new_pool()
                return capture(blocks, held, mask, self._pool)
            except RuntimeError as error:
                reason = str(error).splitlines()[0]
                logger.warning_once(f"CUDA graphs cannot be used here ({reason}): short recordings take longer.")
                self._works = False
                return None


def _new_pool() -> Any:
    return torch.cuda.graph_pool_handle()


def _replayed(graph: Graph, blocks: Blocks, features: torch.Tensor, mask: torch.Tensor | None) -> Output:
    """The output for these features, in memory of its own."""
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

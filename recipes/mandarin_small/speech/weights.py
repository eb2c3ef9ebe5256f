"""Read the tensors of Kokoro's int8 ONNX file, dequantised and named as in the original network."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import NodeProto, numpy_helper

# The graph wraps the network in two modules; nodes of the first outside these parts belong to the prosody predictor.
_WRAPPERS = ("encoder", "decoder")
_PARTS = ("bert", "bert_encoder", "text_encoder", "predictor")
_LAYERS = ("ConvInteger", "MatMulInteger", "Conv", "ConvTranspose", "MatMul")
# Parameters that kept their names in the export: layer norms and slopes of Snake.
_NAMED = re.compile(r"(?:encoder|decoder)\.(.*(?:[Ll]ayer_?[Nn]orm\.(?:weight|bias)|\.gamma|\.beta|\.alpha[12]\.\d))")


def read_weights(path: str | Path) -> dict[str, torch.Tensor]:
    """
    Read the weights of Kokoro-82M from its ONNX file.

    The export folded weight norm into unnamed constants; the name of a node gives its module.

    Args:
        path: `kokoro.onnx`, quantised dynamically by onnxruntime.

    Returns:
        The state of [`Kokoro`], in float32.
    """
    graph = onnx.load(path).graph
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    weights = {}
    for name in constants:
        if named := _NAMED.fullmatch(name):
            weights[named[1].replace(".gamma", ".weight").replace(".beta", ".bias")] = constants[name]
    for node in graph.node:
        weights.update(_parameters(node, constants))
    return {name: torch.from_numpy(np.array(value, np.float32)) for name, value in weights.items()}


def _parameters(node: NodeProto, constants: dict[str, NDArray[Any]]) -> Iterator[tuple[str, NDArray[Any]]]:
    """Weight and bias of the layer that a node computes, if it is one."""

    def dequantised(name: str, scale: str, zero: str) -> NDArray[np.float32]:
        """Dequantise; a scale is for a whole tensor, a column of a matrix, or a direction of an LSTM."""
        values, scales, zeros = constants[name], constants[scale], constants[zero].astype(np.float32)
        if values.ndim == 3:
            scales, zeros = scales.reshape(-1, 1, 1), zeros.reshape(-1, 1, 1)
        return np.asarray((values - zeros) * scales, np.float32)

    inputs = list(node.input)
    if node.op_type == "DequantizeLinear":  # of rows that a Gather takes from a quantised table
        table = node.name.removesuffix("/Gather_quant_DequantizeLinear").strip("/").replace("/", ".")
        yield _module(node) + ".weight", dequantised(f"{table}.weight_quantized", inputs[1], inputs[2])
    elif node.op_type == "DynamicQuantizeLSTM":
        along_input, along_state = dequantised(inputs[1], *inputs[8:10]), dequantised(inputs[2], *inputs[10:12])
        for direction, suffix in enumerate(("", "_reverse")):
            biases = np.split(constants[inputs[3]][direction], 2)
            yield f"{_module(node)}.weight_ih_l0{suffix}", _gates(along_input[direction].T)
            yield f"{_module(node)}.weight_hh_l0{suffix}", _gates(along_state[direction].T)
            yield f"{_module(node)}.bias_ih_l0{suffix}", _gates(biases[0])
            yield f"{_module(node)}.bias_hh_l0{suffix}", _gates(biases[1])
    elif node.op_type in _LAYERS and inputs[1] in constants and "istft" not in node.name:
        weight = constants[inputs[1]]
        if node.op_type.endswith("Integer"):
            weight = dequantised(inputs[1], inputs[1].removesuffix("_quantized") + "_scale", inputs[3])
        yield _module(node) + ".weight", weight.T if "MatMul" in node.op_type else weight
        for name in (f"{wrapper}.{_module(node)}.bias" for wrapper in _WRAPPERS):
            if name in constants:
                yield _module(node) + ".bias", constants[name]


def _gates(rows: NDArray[Any]) -> NDArray[Any]:
    """Reorder an LSTM's gates from ONNX (input, output, forget, cell) to PyTorch (input, forget, cell, output)."""
    into, out, forget, cell = np.split(rows, 4)
    return np.concatenate([into, forget, cell, out])


def _module(node: NodeProto) -> str:
    """Module of a node: `text_encoder.cnn.0.0` for `/encoder/text_encoder/cnn.0/cnn.0.0/Conv`."""
    wrapper, *parts = node.name.strip("/").split("/")[:-1]
    if wrapper == "encoder" and parts[0] not in _PARTS:
        parts.insert(0, "predictor")
    # A layer of a sequence has the sequence's name before its own; a layer that is used several times ends in a number.
    kept = [part for part, after in zip(parts, [*parts[1:], ""], strict=True) if not after.startswith(f"{part}.")]
    return re.sub(r"_\d+$", "", ".".join(kept))

"""Kokoro's int8 ONNX graph without its quantised activations, which PyTorch's network is compared with."""

import numpy as np
import onnx
from onnx import helper, numpy_helper

SPECTRA = "/decoder/decoder/generator/Concat_3_output_0"
TAPS = {
    "pitch": "/encoder/F0_proj/Conv_output_0",
    "energy": "/encoder/N_proj/Conv_output_0",
    "decoded": "/decoder/decoder/decode.3/Div_4_output_0",
    "source": "/decoder/decoder/generator/Squeeze_output_0",
    "spectra": SPECTRA,
}


def float_graph(path):
    """The same weights, multiplied in float32; outputs are the audio and `TAPS`."""
    model = onnx.load(path)
    graph = model.graph
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    added = {}

    def dequantised(name, zero, scale=1.0):
        values = (constants[name].astype(np.float32) - np.asarray(zero, np.float32)) * np.asarray(scale, np.float32)
        added[f"{name}_float"] = np.ascontiguousarray(values.transpose(0, 2, 1) if "LSTM" in name else values)
        return f"{name}_float"

    nodes = []
    for node in graph.node:
        inputs = list(node.input)
        if node.op_type == "DynamicQuantizeLinear":  # value, scale, zero
            added["one"], added["zero"] = np.float32(1), np.float32(0)
            sources = (inputs[0], "one", "zero")
            nodes += [helper.make_node("Identity", [s], [o]) for s, o in zip(sources, node.output, strict=True)]
            continue
        if node.op_type in ("ConvInteger", "MatMulInteger"):
            inputs = [inputs[0], dequantised(inputs[1], constants[inputs[3]])]
            kind = node.op_type.removesuffix("Integer")
        elif node.op_type == "DynamicQuantizeLSTM":
            scales = [constants[name].reshape(-1, 1, 1) for name in inputs[8:12]]
            weights = dequantised(inputs[1], scales[1], scales[0]), dequantised(inputs[2], scales[3], scales[2])
            inputs, kind = [inputs[0], *weights, *inputs[3:7]], "LSTM"
        elif "bias_quant_rounded" in node.output[0] or ("bias_quantized" in node.output[0] and node.op_type == "Cast"):
            inputs, kind = inputs[:1], "Identity"
        else:
            if node.name == "/decoder/decoder/generator/Greater":  # angle(-1) is -π in the file, π for everyone else
                node.op_type = "GreaterOrEqual"
            nodes.append(node)
            continue
        replaced = helper.make_node(kind, inputs, list(node.output), name=node.name)
        if kind != "Identity":
            replaced.attribute.extend(a for a in node.attribute if a.name != "input_forget")
        nodes.append(replaced)
    del graph.node[:], graph.value_info[:]
    graph.node.extend(nodes)
    graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in added.items())
    graph.output.extend(onnx.ValueInfoProto(name=name) for name in TAPS.values())
    return model

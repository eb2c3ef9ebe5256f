"""
Measure other ways to run the network on a CPU than those of `CitrinetInferenceConfig`.

    python benchmarks/backends.py MODEL [--without compiled]

Only the network is measured, on noise; backends take turns, round by round: the network as it is; compiled by
`torch.compile` with frozen weights, in float32 and bfloat16 (needs a C++ compiler); torch's dynamic quantization of
linear layers; torchao's (needs torchao), as it is and compiled; and the three precisions of this package. Printed are
medians, and seconds to the first output, which are many minutes for a compiled network of full size.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch
import torch._inductor.config
from torch import nn
from transformers import AutoModelForCTC

import citrinet  # noqa: F401  # registers Citrinet with Transformers
from citrinet.optimized import PRECISIONS, optimize_for_inference

CASES = {"1 x 10 s": (1, 1008), "8 x 10 s": (8, 1008)}
Network = Callable[[torch.Tensor], torch.Tensor]


def main() -> None:
    """Measure, print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--without", metavar="TEXT", help="leave out backends with TEXT in their name")
    options = parser.parse_args()
    torch._inductor.config.freezing = True
    torch._inductor.config.cpp.weight_prepack = False  # with it, inductor mistakes the layout of a convolution
    first: dict[str, float] = {}
    seconds: dict[tuple[str, str], list[float]] = {}
    with torch.inference_mode(False), torch.no_grad():
        networks = backends(options.model)
        if options.without:
            networks = {name: network for name, network in networks.items() if options.without not in name}
        for case, shape in CASES.items():
            features = torch.randn(*shape, 80)
            for turn in range(options.rounds + 1):
                for name, network in list(networks.items()):
                    start = time.perf_counter()
                    try:
                        network(features)
                    except Exception as error:  # a backend that fails is left out
                        print(f"{name}: {' '.join(str(error).split())[:300]}", flush=True)
                        del networks[name]
                        continue
                    elapsed = time.perf_counter() - start
                    first.setdefault(name, elapsed)
                    if turn:
                        seconds.setdefault((name, case), []).append(elapsed)
    print("| backend | " + " | ".join(CASES) + " | first output |")
    print("|---" * (len(CASES) + 2) + "|")
    for name in networks:
        cells = []
        for case in CASES:
            median = statistics.median(seconds[name, case])
            ratio = statistics.median(seconds["as it is", case]) / median
            cells.append(f"{median:.2f} s, {ratio:.2f}x")
        print(f"| {name} | " + " | ".join(cells) + f" | {first[name]:.1f} s |")


def backends(name: str) -> dict[str, Network]:
    """Name -> network of features (B, T, 80)."""
    model = load(name)
    networks: dict[str, nn.Module | Callable] = {"as it is": model}
    networks["compiled, float32"] = torch.compile(load(name))
    networks["compiled, bfloat16"] = torch.compile(load(name).bfloat16())
    networks["dynamic quantization"] = torch.ao.quantization.quantize_dynamic(load(name), {nn.Linear}, torch.qint8)
    try:
        from torchao.quantization import Int8DynamicActivationInt8WeightConfig, quantize_
    except ImportError:
        print("torchao is not installed")
    else:
        for kind in ("torchao", "torchao, compiled"):
            quantized = load(name)
            quantize_(quantized, Int8DynamicActivationInt8WeightConfig())
            networks[kind] = torch.compile(quantized) if "compiled" in kind else quantized
    networks |= {precision: optimize_for_inference(model, precision) for precision in PRECISIONS}
    return {name: lambda features, network=network: network(features).logits for name, network in networks.items()}


def load(name: str) -> nn.Module:
    """Load the model for inference."""
    return AutoModelForCTC.from_pretrained(name, dtype=torch.float32).eval()


if __name__ == "__main__":
    main()

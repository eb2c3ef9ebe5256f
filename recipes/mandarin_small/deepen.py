"""
Deepen a trained network: another convolution in every block that has two or more, which at first changes nothing.

    python deepen.py MODEL DEEPER MANIFEST [BLOCK...]

Deep networks with random weights stay on the plateau where CTC begins; a trained one that is deepened is past it. The
new convolution is the identity after the first activation. Its batch normalisation has the statistics of its input,
measured over some recordings of MANIFEST, and a little noise makes its weights differ.
"""

import sys
from itertools import islice

import torch
from torch import nn
from transformers import AutoModelForCTC, AutoProcessor

from citrinet import load_audio
from citrinet.manifest import read_manifest

NOISE = 0.01


@torch.no_grad()
def main(source: str, output: str, manifest: str, *blocks: str) -> None:
    """Write the deeper model, deeper in all blocks or in some (numbers from 0), with the processor of the first."""
    model, processor = AutoModelForCTC.from_pretrained(source).eval(), AutoProcessor.from_pretrained(source)
    torch.manual_seed(0)
    seen = activations(model, processor, manifest)
    if blocks:
        seen = {index: seen[index] for index in map(int, blocks)}
    config = model.config
    config.num_repeats = [repeats + (index in seen) for index, repeats in enumerate(config.num_repeats)]
    deeper = type(model)(config)
    weights = {moved(name, set(seen)): value for name, value in model.state_dict().items()}
    deeper.load_state_dict(weights, strict=False)
    for index, (mean, std) in seen.items():
        become_identity(deeper.base_model.blocks[index].convs[1], mean, std)
    deeper.save_pretrained(output)
    processor.save_pretrained(output)


def activations(model: nn.Module, processor, manifest: str) -> dict[int, tuple[torch.Tensor, torch.Tensor]]:
    """For each block of two convolutions or more, mean and deviation (C,) after the first one's activation."""
    frames: dict[int, list[torch.Tensor]] = {}
    for index, block in enumerate(model.base_model.blocks):
        if len(block.convs) > 1:
            keep = frames.setdefault(index, [])
            block.convs[0].register_forward_hook(lambda _, __, out, keep=keep: keep.append(out[0][0]))
    for entry in islice(read_manifest(manifest), 200):
        model(**processor(load_audio(entry.audio), sampling_rate=16000))
    return {index: (torch.cat(kept).mean(0), torch.cat(kept).std(0)) for index, kept in frames.items()}


def moved(name: str, deeper: set[int]) -> str:
    """Where a weight goes: in the blocks that become deeper, convolutions after the first move up by one."""
    parts = name.split(".")
    if "convs" in parts and int(parts[parts.index("blocks") + 1]) in deeper:
        place = parts.index("convs") + 1
        parts[place] = str(int(parts[place]) + (parts[place] != "0"))
    return ".".join(parts)


def become_identity(conv: nn.Module, mean: torch.Tensor, std: torch.Tensor) -> None:
    """Make a separable convolution the identity but for some noise, for inputs of this mean and deviation (C,)."""
    for weight in (conv.depthwise.weight, conv.pointwise.weight):
        weight.normal_(0, NOISE)
    conv.depthwise.weight[:, 0, conv.depthwise.kernel_size[0] // 2] += 1
    conv.pointwise.weight += torch.eye(len(mean))
    conv.norm.running_mean.copy_(mean)
    conv.norm.running_var.copy_(std**2)
    conv.norm.bias.copy_(mean)
    conv.norm.weight.copy_((std**2 + conv.norm.eps).sqrt())


if __name__ == "__main__":
    main(*sys.argv[1:])

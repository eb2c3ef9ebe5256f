"""Table of the names and shapes of Citrinet weights in NeMo and here, for conversion in both directions."""

from collections.abc import Iterator
from typing import NamedTuple

import torch

from citrinet.configuration_citrinet import CitrinetConfig

_BATCH_NORM = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")


class Weight(NamedTuple):
    """A tensor's name in NeMo and here, and whether NeMo stores the matrix as a convolution of width 1."""

    nemo: str
    ours: str
    pointwise: bool = False

    def to_ours(self, tensor: torch.Tensor) -> torch.Tensor:
        """Convert NeMo's tensor to ours: (out, in, 1) -> (out, in) if pointwise."""
        return tensor.squeeze(-1) if self.pointwise else tensor

    def to_nemo(self, tensor: torch.Tensor) -> torch.Tensor:
        """Convert our tensor to NeMo's: (out, in) -> (out, in, 1) if pointwise."""
        return tensor.unsqueeze(-1) if self.pointwise else tensor


def weight_map(config: CitrinetConfig) -> list[Weight]:
    """
    List every weight of a [`CitrinetForCTC`] with this configuration, with NeMo's name and ours.

    Source: NeMo's `JasperBlock`, `LinearAdapter`, `ConvASRDecoder`; PromptingNemo's `tag_classifier.heads`.
    """
    rows: list[Weight] = []
    for block in range(config.num_hidden_layers):
        rows += _block(config, block)
    rows.append(Weight("decoder.decoder_layers.0.weight", "ctc_head.weight", pointwise=True))
    rows.append(Weight("decoder.decoder_layers.0.bias", "ctc_head.bias"))
    for category in config.tag_labels:
        for part in ("weight", "bias"):
            rows.append(Weight(f"tag_classifier.heads.{category}.{part}", f"tag_heads.{category}.{part}"))
    return rows


def _block(config: CitrinetConfig, block: int) -> Iterator[Weight]:
    nemo, ours = f"encoder.encoder.{block}", f"model.blocks.{block}"
    repeats = config.num_repeats[block]
    for repeat in range(repeats):
        # NeMo's list has depthwise, pointwise, norm, activation and dropout; the last repeat lacks the last two.
        first, conv = 5 * repeat, f"{ours}.convs.{repeat}"
        yield Weight(f"{nemo}.mconv.{first}.conv.weight", f"{conv}.depthwise.weight")
        yield Weight(f"{nemo}.mconv.{first + 1}.conv.weight", f"{conv}.pointwise.weight", pointwise=True)
        yield from _batch_norm(f"{nemo}.mconv.{first + 2}", f"{conv}.norm")
    gate = f"{nemo}.mconv.{5 * repeats - 2}.fc"
    yield Weight(f"{gate}.0.weight", f"{ours}.squeeze_excitation.down.weight")
    yield Weight(f"{gate}.2.weight", f"{ours}.squeeze_excitation.up.weight")
    if config.residuals[block]:
        yield Weight(f"{nemo}.res.0.0.conv.weight", f"{ours}.residual.weight", pointwise=True)
        yield from _batch_norm(f"{nemo}.res.0.1", f"{ours}.residual_norm")
    for adapter in config.adapters:
        yield from _adapter(
            f"{nemo}.adapter_layer.{adapter['name']}.module",
            f"{ours}.adapters.{adapter['name']}",
            adapter["norm_position"],
        )


def _batch_norm(nemo: str, ours: str) -> Iterator[Weight]:
    return (Weight(f"{nemo}.{part}", f"{ours}.{part}") for part in _BATCH_NORM)


def _adapter(nemo: str, ours: str, norm_position: str) -> Iterator[Weight]:
    """Weights of an adapter; in NeMo's list the norm is first or last, and the activation has an index too."""
    norm, down, up = (0, 1, 3) if norm_position == "pre" else (3, 0, 2)
    yield Weight(f"{nemo}.{norm}.weight", f"{ours}.norm.weight")
    yield Weight(f"{nemo}.{norm}.bias", f"{ours}.norm.bias")
    yield Weight(f"{nemo}.{down}.weight", f"{ours}.down.weight")
    yield Weight(f"{nemo}.{up}.weight", f"{ours}.up.weight")

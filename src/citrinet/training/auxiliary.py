"""
CTC heads on intermediate blocks, used only in training: they give the first blocks a more direct training signal.

Source: *Intermediate Loss Regularization for CTC-based Speech Recognition* (Lee & Watanabe 2021, arXiv:2102.03216);
NeMo's `interctc`.
"""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..configuration_citrinet import CitrinetConfig
from ..modeling_citrinet import CitrinetCTCOutput, CitrinetForCTC, ctc_loss

PREFIX = "auxiliary_heads."  # of their names in the state dict of a model


class AuxiliaryHeads(nn.Module):
    """
    Linear CTC heads on the outputs of some blocks. The blank is the last output.

    Args:
        config: configuration of the network.
        blocks: indices of the blocks, from 0 as in the lists of the configuration, except the last block, which has the
            network's own head.
        vocab_size: number of outputs of each head, including the blank.

    Raises:
        ValueError: if `blocks` is empty, repeats a block or names one that does not exist.
    """

    def __init__(self, config: CitrinetConfig, blocks: Sequence[int], vocab_size: int):
        super().__init__()
        last = config.num_hidden_layers - 1
        if not blocks or len(set(blocks)) != len(blocks) or any(not 0 <= block < last for block in blocks):
            raise ValueError(
                f"auxiliary heads on the blocks {list(blocks)}: name some of 0 to {last - 1}, each once (the last of "
                f"the {last + 1} has the CTC head)."
            )
        self.blocks = tuple(blocks)
        self.strides = tuple(math.prod(config.strides[: block + 1]) for block in blocks)
        heads = [nn.Linear(config.hidden_sizes[block], vocab_size) for block in blocks]
        self.blank = vocab_size - 1
        self.reduction, self.zero_infinity = config.ctc_loss_reduction, config.ctc_zero_infinity
        for head in heads:
            nn.init.xavier_uniform_(head.weight)
        self.heads = nn.ModuleList(heads)

    def loss(
        self,
        hidden_states: Sequence[torch.Tensor],
        frame_lengths: torch.Tensor,
        labels: torch.Tensor,
        label_lengths: torch.Tensor,
    ) -> torch.Tensor:
        """
        Mean of the heads' CTC losses, each reduced like the network's own loss.

        Args:
            hidden_states: input features and the output of every block, (B, T_i, C_i), as `output_hidden_states`
                returns them.
            frame_lengths: (B,) valid frames of the features, before any stride.
            labels: (B, L) padded, or (sum of the lengths,).
            label_lengths: (B,). On a GPU, lengths may be in CPU memory, which saves a synchronisation.

        Returns:
            () float32.
        """
        losses = [
            ctc_loss(
                head(hidden_states[block + 1]),
                (frame_lengths + stride - 1) // stride,
                labels,
                label_lengths,
                self.blank,
                self.reduction,
                self.zero_infinity,
            )
            for block, stride, head in zip(self.blocks, self.strides, self.heads, strict=True)
        ]
        return torch.stack(losses).mean()


def read_units(path: str | Path) -> dict[str, str]:
    """
    Read the table of units that the auxiliary heads predict.

    Args:
        path: file with a JSON object, token -> coarser unit, such as character -> syllable.

    Raises:
        OSError: if the file cannot be read.
        ValueError: if it is not such a table.
    """
    try:
        table = json.loads(Path(path).read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is no JSON: {error}") from error
    if not isinstance(table, dict) or not all(isinstance(unit, str) for unit in table.values()):
        raise ValueError(f"{path} is no table of units: write a JSON object of texts, token: unit.")
    return table


def unit_ids(vocabulary: Mapping[str, int], blank: int, table: Mapping[str, str] | None = None) -> torch.Tensor:
    """
    Number the units of the tokens of a network.

    Args:
        vocabulary: token -> id.
        blank: id of the blank, which has no unit.
        table: token -> unit; a token that is not in it has no unit. Without a table every token is its own unit.

    Returns:
        (V,) long: id of the unit of each token, from 0 without gaps; -1 for tokens without one.

    Raises:
        ValueError: if no token has a unit.
    """
    units = {token: token if table is None else table.get(token) for token, id in vocabulary.items() if id != blank}
    names = {unit: number for number, unit in enumerate(sorted({unit for unit in units.values() if unit is not None}))}
    if not names:
        raise ValueError("the table of units has none of the tokens of the network: its keys are tokens.")
    ids = torch.full((len(vocabulary),), -1)
    for token, unit in units.items():
        if unit is not None:
            ids[vocabulary[token]] = names[unit]
    return ids


@dataclass
class AuxiliaryOutput(CitrinetCTCOutput):
    """
    Output of a [`CitrinetForCTC`] with auxiliary heads, in training.

    Args:
        auxiliary_loss: (), mean loss of the auxiliary heads; not included in `loss`.
    """

    auxiliary_loss: torch.Tensor | None = None


class _WithAuxiliaryHeads(CitrinetForCTC):  # type: ignore[no-untyped-call]
    """Network with auxiliary heads, which run inside `forward` so that replicas and autocast include them."""

    auxiliary_heads: AuxiliaryHeads
    auxiliary_units: torch.Tensor

    def forward(
        self,
        input_features: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        *args: Any,
        **kwargs: Any,
    ) -> Any:
        """Same as [`CitrinetForCTC.forward`], but returns an [`AuxiliaryOutput`] in training with labels."""
        if not self.training or labels is None:
            return CitrinetForCTC.forward(self, input_features, attention_mask, labels, *args, **kwargs)
        kwargs |= {"output_hidden_states": True, "return_dict": True}
        output: Any = CitrinetForCTC.forward(self, input_features, attention_mask, labels, *args, **kwargs)
        valid = torch.ones_like(input_features[..., 0]) if attention_mask is None else attention_mask
        units = self.auxiliary_units[labels.clamp(min=0)].masked_fill(labels < 0, -1)
        frames, counts = valid.bool().sum(dim=1), (units >= 0).sum(dim=1)
        loss = self.auxiliary_heads.loss(output.hidden_states, frames, units[units >= 0], counts)
        return AuxiliaryOutput(**{**output, "hidden_states": None}, auxiliary_loss=loss)


def attach(model: CitrinetForCTC, heads: AuxiliaryHeads, units: torch.Tensor) -> None:
    """
    Add auxiliary heads to a network, so that it returns an [`AuxiliaryOutput`] in training.

    This replaces the class of the network, as `torch.nn.utils.parametrize` does; saved checkpoints do not mention it.

    Args:
        model: the network, changed in place.
        heads: the heads.
        units: (V,) result of [`unit_ids`].
    """
    model.__class__ = _WithAuxiliaryHeads
    model.auxiliary_heads = heads.to(model.device)
    model.register_buffer("auxiliary_units", units.to(model.device), persistent=False)


@contextmanager
def detached(model: CitrinetForCTC) -> Iterator[None]:
    """Remove the auxiliary heads of a network, if any, within the context: to save or load a checkpoint."""
    if not isinstance(model, _WithAuxiliaryHeads):
        yield
        return
    heads = model.auxiliary_heads
    del model.auxiliary_heads
    model.__class__ = CitrinetForCTC  # type: ignore[assignment]
    try:
        yield
    finally:
        model.__class__ = _WithAuxiliaryHeads
        model.auxiliary_heads = heads

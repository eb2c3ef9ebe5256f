"""
CTC heads on blocks in the middle of a network, for the time of training: they teach the first blocks sooner.

Source: *Intermediate Loss Regularization for CTC-based Speech Recognition* (Lee & Watanabe 2021, arXiv:2102.03216);
NeMo's `interctc`.
"""

import math
from collections.abc import Sequence

import torch
from torch import nn

from ..configuration_citrinet import CitrinetConfig
from ..modeling_citrinet import ctc_loss


class AuxiliaryHeads(nn.Module):
    """
    A linear CTC head on the output of each of some blocks. The blank is the last of its outputs.

    Args:
        config: of the network.
        blocks: which, counted from 0 as in the lists of the configuration; the last has the network's own head.
        vocab_size: outputs of each head, the blank included.

    Raises:
        ValueError: for blocks that are not there, repeat, or are none.
    """

    def __init__(self, config: CitrinetConfig, blocks: Sequence[int], vocab_size: int):
        super().__init__()
        last = config.num_hidden_layers - 1
        if not blocks or len(set(blocks)) != len(blocks) or any(not 0 <= block < last for block in blocks):
            raise ValueError(
                f"auxiliary heads on the blocks {list(blocks)}: name some of 0 to {last - 1}, each once (the last of the "
                f"{last + 1} has the CTC head)."
            )
        self.blocks = tuple(blocks)
        self.strides = tuple(math.prod(config.strides[: block + 1]) for block in blocks)
        self.heads = nn.ModuleList(nn.Linear(config.hidden_sizes[block], vocab_size) for block in blocks)
        self.blank = vocab_size - 1
        self.reduction, self.zero_infinity = config.ctc_loss_reduction, config.ctc_zero_infinity
        for weight in (head.weight for head in self.heads):
            nn.init.xavier_uniform_(weight)

    def loss(
        self,
        hidden_states: Sequence[torch.Tensor],
        frame_lengths: torch.Tensor,
        labels: torch.Tensor,
        label_lengths: torch.Tensor,
    ) -> torch.Tensor:
        """
        Mean of the heads' CTC losses, each reduced as the configuration says of the network's own.

        Args:
            hidden_states: input features and the output of every block, (B, T_i, C_i), as `output_hidden_states` gives
                them.
            frame_lengths: (B,) valid frames of the features, before any stride.
            labels: (B, L) padded, or (sum of the lengths,).
            label_lengths: (B,). On a GPU lengths may be in the CPU's memory, which spares the loss waiting for them.

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

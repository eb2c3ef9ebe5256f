"""CTC heads in the middle of a network."""

import pytest
import torch
from torch.nn import functional as F

from citrinet import CitrinetForCTC
from citrinet.training.auxiliary import AuxiliaryHeads
from tiny_models import tiny_config

FRAMES = torch.tensor([61, 40, 33])
LABELS = torch.tensor([[0, 1, 1, 2], [3, 3, 9, 9], [4, 9, 9, 9]])
LENGTHS = torch.tensor([4, 2, 1])
UNITS = 6  # the last is the blank


@pytest.mark.parametrize("reduction", ["mean_batch", "mean", "sum"])
def test_the_loss_is_pytorchs_on_each_utterance_alone(reduction):
    """Blocks before, at and after the strides; each utterance cut to its own frames, so that padding cannot count."""
    torch.manual_seed(0)
    config = tiny_config(ctc_loss_reduction=reduction)
    model, blocks = CitrinetForCTC(config).eval(), (0, 2, 1)
    heads = AuxiliaryHeads(config, blocks, UNITS)
    features = torch.randn(3, 64, 8)
    mask = torch.arange(64) < FRAMES[:, None]
    hidden = model(features, mask, output_hidden_states=True).hidden_states
    losses = torch.zeros(3, 3)
    for row, block in enumerate(blocks):
        for item, frames in enumerate(FRAMES):
            alone = model(features[item : item + 1, :frames], output_hidden_states=True).hidden_states[block + 1]
            logits = heads.heads[row](alone).log_softmax(-1).transpose(0, 1)
            target = LABELS[item : item + 1, : LENGTHS[item]]
            sizes = torch.tensor([len(logits)]), LENGTHS[item : item + 1]
            losses[row, item] = F.ctc_loss(logits, target, *sizes, blank=UNITS - 1, reduction="sum")
    expected = {
        "sum": losses.sum(1).mean(),
        "mean_batch": losses.sum(1).mean() / 3,
        "mean": (losses / LENGTHS).mean(),
    }[reduction]
    found = heads.loss(hidden, FRAMES, LABELS, LENGTHS)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    joined = torch.cat([row[:n] for row, n in zip(LABELS, LENGTHS, strict=True)])
    assert torch.equal(heads.loss(hidden, FRAMES, joined, LENGTHS), found)


@pytest.mark.parametrize("blocks", [(), (3,), (-1,), (1, 1)])
def test_blocks_that_cannot_have_a_head(blocks):
    with pytest.raises(ValueError, match=r"name some of 0 to 2, each once \(the last of the 4 has the CTC head\)"):
        AuxiliaryHeads(tiny_config(), blocks, UNITS)

"""The untrained network."""

import torch

from citrinet import CitrinetConfig, CitrinetForCTC, CitrinetTokenizer

TAG_LOSS_WEIGHT = 0.1
BRANCH = 0.4  # initial weight of a block's convolutions relative to its residual branch

# channels, convolutions of each block, their kernel sizes, blocks with auxiliary heads for syllables
SIZES: dict[str, tuple[int, list[int], list[int], list[int]]] = {
    "base": (384, [1, 2] + [3] * 11 + [1], [5, 5, 7, 7, 9, 9, 11, 11, 13, 13, 15, 15, 17, 19], [2, 5, 9]),
    "tiny": (64, [1, 2, 2, 1], [5, 5, 7, 9], [1]),
}


def make_network(
    size: str, tokenizer: CitrinetTokenizer, tag_labels: dict[str, list[str]], seed: int = 0
) -> CitrinetForCTC:
    """
    Make a network with 40 ms frames, an adapter and tag heads.

    Args:
        size: one of `SIZES`.
        tokenizer: tokenizer of the CTC head.
        tag_labels: category -> labels of its head.
        seed: random seed of the weights.
    """
    channels, repeats, kernels, _ = SIZES[size]
    blocks = len(repeats)
    config = CitrinetConfig(
        vocab_size=len(tokenizer),
        pad_token_id=tokenizer.pad_token_id,
        hidden_sizes=[channels] * blocks,
        num_repeats=repeats,
        kernel_sizes=kernels,
        strides=[2, 2] + [1] * (blocks - 2),
        residuals=[False] + [True] * (blocks - 2) + [False],
        dropouts=[0.0] + [0.05] * (blocks - 2) + [0.0],
        adapters=[{"name": "tags", "dim": 64}],
        tag_labels=tag_labels,
        tag_loss_weight=TAG_LOSS_WEIGHT,
        freq_masks=2,
        freq_width=18,
        time_masks=4,
        time_width=0.06,
    )
    torch.manual_seed(seed)
    model = CitrinetForCTC(config)
    _begin_as_identity(model)
    return model


@torch.no_grad()
def _begin_as_identity(model: CitrinetForCTC) -> None:
    """
    Initialise residual branches close to the identity, so that a signal passes all blocks from the first step.

    With random branches a network of this depth stays on CTC's plateau. The bias keeps most of the normalised signal
    above 0, where the activation does not cut it off.
    """
    for block in model.model.blocks:
        if block.residual is not None and block.residual.in_features == block.residual.out_features:
            weight = block.residual.weight
            weight.mul_(0.1).add_(torch.eye(len(weight)))
            block.residual_norm.bias.fill_(0.5)
            block.convs[-1].norm.weight.fill_(BRANCH)

"""
Layers of Kokoro's prosody predictor and decoder, for utterances of different lengths in one batch.

Tensors are (batch, channels, time), with one utterance per row; `mask` (batch, 1, time) is true inside it.
Convolutions see zeros beyond an utterance's end, and statistics are over its own samples, so that it sounds the same in
any batch.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Conv1d(nn.Conv1d):
    """
    `nn.Conv1d` with channels innermost in memory, for which cuDNN has its fast kernels in half precision.

    `F.conv1d` puts time innermost; a convolution over images of one row keeps the channels there, as do later layers.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(batch, channels, time) to the same."""
        weight, stride, padding = self.weight.unsqueeze(2), (1, *self.stride), (0, *self.padding)
        return F.conv2d(_image(x), weight, self.bias, stride, padding, (1, *self.dilation), self.groups).squeeze(2)


class ConvTranspose1d(nn.ConvTranspose1d):
    """`nn.ConvTranspose1d` with channels innermost in memory, see [`Conv1d`]."""

    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        """(batch, channels, time) to (batch, channels, longer time); `output_size` is ignored."""
        weight, stride, padding = self.weight.unsqueeze(2), (1, *self.stride), (0, *self.padding)
        y = F.conv_transpose2d(_image(x), weight, self.bias, stride, padding, (0, *self.output_padding), self.groups)
        return y.squeeze(2)


def _image(x: Tensor) -> Tensor:
    return x.unsqueeze(2).contiguous(memory_format=torch.channels_last)


class AdaIN(nn.Module):
    """
    Adaptive instance norm (Huang & Belongie 2017): a style determines the mean and deviation of every channel.

    Args:
        style_size: length of a style vector.
        channels: number of channels.
    """

    def __init__(self, style_size: int, channels: int):
        super().__init__()
        self.fc = nn.Linear(style_size, 2 * channels)

    def forward(self, x: Tensor, style: Tensor, mask: Tensor) -> Tensor:
        """(batch, channels, time) to the same in float32, with arbitrary values where the mask is false."""
        count = mask.sum(-1, keepdim=True)
        mean = (x * mask).sum(-1, keepdim=True, dtype=torch.float32) / count
        centred = (x - mean) * mask  # means may be large: differences of squares would lose digits
        variance = torch.linalg.vector_norm(centred, dim=-1, keepdim=True).square() / count
        asked: Tensor = self.fc(style).float().unsqueeze(-1)
        scale, shift = asked.chunk(2, dim=1)
        return centred.mul_((1 + scale) * torch.rsqrt(variance + 1e-5)).add_(shift)


class StyledBlock(nn.Module):
    """
    Residual block of two convolutions, each after [`AdaIN`] and a leaky ReLU (StyleTTS 2, Li et al. 2023).

    Args:
        inputs: number of input channels.
        outputs: number of output channels.
        style_size: length of a style vector.
        upsample: whether to double the number of time steps.
    """

    def __init__(self, inputs: int, outputs: int, style_size: int, upsample: bool = False):
        super().__init__()
        self.norm1, self.norm2 = AdaIN(style_size, inputs), AdaIN(style_size, outputs)
        self.conv1 = Conv1d(inputs, outputs, 3, padding=1)
        self.conv2 = Conv1d(outputs, outputs, 3, padding=1)
        self.conv1x1 = Conv1d(inputs, outputs, 1, bias=False) if inputs != outputs else nn.Identity()
        self.upsample = upsample
        if upsample:
            self.pool = ConvTranspose1d(inputs, inputs, 3, stride=2, groups=inputs, padding=1, output_padding=1)

    def forward(self, x: Tensor, style: Tensor, mask: Tensor) -> Tensor:
        """(batch, inputs, time) to (batch, outputs, time or 2 * time)."""
        y: Tensor = F.leaky_relu_(self.norm1(x, style, mask), 0.2) * mask
        x = self.conv1x1(x)
        if self.upsample:
            mask = mask.repeat_interleave(2, dim=-1)
            y, x = self.pool(y) * mask, x.repeat_interleave(2, dim=-1)
        y = self.conv1(y)
        y = self.conv2(F.leaky_relu_(self.norm2(y, style, mask), 0.2) * mask)
        return (y + x) * math.sqrt(0.5)


class SnakeBlock(nn.Module):
    """
    Three dilated residual convolutions of HiFi-GAN (Kong et al. 2020) with [`AdaIN`] and Snake activations.

    Args:
        channels: number of channels.
        kernel: kernel size of every convolution.
        style_size: length of a style vector.
    """

    def __init__(self, channels: int, kernel: int, style_size: int):
        super().__init__()
        spread = [Conv1d(channels, channels, kernel, dilation=d, padding=(kernel - 1) // 2 * d) for d in (1, 3, 5)]
        self.convs1 = nn.ModuleList(spread)
        self.convs2 = nn.ModuleList(Conv1d(channels, channels, kernel, padding=(kernel - 1) // 2) for _ in range(3))
        self.adain1 = nn.ModuleList(AdaIN(style_size, channels) for _ in range(3))
        self.adain2 = nn.ModuleList(AdaIN(style_size, channels) for _ in range(3))
        self.alpha1 = nn.ParameterList(torch.ones(1, channels, 1) for _ in range(3))
        self.alpha2 = nn.ParameterList(torch.ones(1, channels, 1) for _ in range(3))

    def forward(self, x: Tensor, style: Tensor, mask: Tensor) -> Tensor:
        """(batch, channels, time) to the same."""
        for i in range(3):
            y = snake_(self.adain1[i](x, style, mask), self.alpha1[i]).mul_(mask)
            y = self.convs1[i](y.to(x.dtype))
            y = snake_(self.adain2[i](y, style, mask), self.alpha2[i]).mul_(mask)
            x = x + self.convs2[i](y.to(x.dtype))
        return x


def snake_(x: Tensor, alpha: Tensor) -> Tensor:
    """Snake (Ziyin et al. 2020), in place: x + sin²(alpha x) / alpha."""
    return x.addcdiv_(torch.sin(x * alpha).square_(), alpha)

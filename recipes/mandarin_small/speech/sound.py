"""From what the synthesiser makes to what is kept: 16 kHz, without the silence around it, 16 bits."""

import numpy as np
import torch
import torchaudio.functional
from numpy.typing import NDArray
from torch import Tensor

RATE = 16_000
KOKORO_RATE = 24_000
LONGEST = 30  # seconds
SILENCE = 0.15  # seconds that are left on either side
_BLOCK = RATE // 200
_QUIET_DB, _SILENT = -42, 1e-4  # below the loudest block; in all
_PEAK = 0.99


def finish(audio: Tensor, lengths: list[int]) -> list[NDArray[np.int16] | None]:
    """
    Resample utterances, cut off their silence and round them.

    Loudness is measured in blocks of 5 ms. Speech lasts from the first to the last that is less than 42 dB below the
    loudest. Amplitudes stay as they are unless they clip.

    Args:
        audio: (batch, samples) float32 at 24 kHz, of a length that divides by 120.
        lengths: samples of each row that are its utterance's.

    Returns:
        Samples at 16 kHz; none for what is silent, lasts more than 30 s, or has a sample that is no finite number.
    """
    real = torch.arange(audio.shape[1], device=audio.device) < torch.tensor(lengths, device=audio.device).unsqueeze(1)
    # The convolution would be one of 10 bits on a GPU, and that much its noise.
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        wave = torchaudio.functional.resample(audio * real, KOKORO_RATE, RATE, lowpass_filter_width=16)
    loudness = wave.unflatten(1, (-1, _BLOCK)).square().mean(-1).sqrt()
    limit = (loudness.amax(1, keepdim=True) * 10 ** (_QUIET_DB / 20)).clamp(min=_SILENT)
    heard = loudness > limit  # nowhere, if anything is NaN or infinite: the limit is then too
    first = heard.int().argmax(1)
    last = heard.shape[1] - heard.flip(1).int().argmax(1)
    wave = wave * (_PEAK / wave.abs().amax(1, keepdim=True)).clamp(max=1)
    samples = (wave * 32767).round().to(torch.int16).cpu().numpy()
    around = round(SILENCE * RATE / _BLOCK)
    pieces: list[NDArray[np.int16] | None] = []
    for row, length, audible, begin, end in zip(
        samples, lengths, heard.any(1).tolist(), first.tolist(), last.tolist(), strict=True
    ):
        piece = row[: length * RATE // KOKORO_RATE][max(0, begin - around) * _BLOCK : (end + around) * _BLOCK]
        pieces.append(piece if audible and len(piece) <= LONGEST * RATE else None)
    return pieces

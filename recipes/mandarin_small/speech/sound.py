"""Post-processing of synthesised speech: 16 kHz, silence trimmed, 16 bits."""

import numpy as np
import torch
import torchaudio.functional
from numpy.typing import NDArray
from torch import Tensor

RATE = 16_000
KOKORO_RATE = 24_000
LONGEST = 30  # seconds
SILENCE = 0.15  # seconds to keep on either side
_BLOCK = RATE // 200
_QUIET_DB, _SILENT = -42, 1e-4  # thresholds: relative to the loudest block, and absolute
_PEAK = 0.99


def finish(audio: Tensor, lengths: list[int]) -> list[NDArray[np.int16] | None]:
    """
    Resample utterances, trim their silence and round them.

    Loudness is measured in blocks of 5 ms. Speech lasts from the first to the last block that is less than 42 dB below
    the loudest. Amplitudes do not change unless they clip.

    Args:
        audio: (batch, samples) float32 at 24 kHz, of a length that is a multiple of 120.
        lengths: number of samples of each utterance.

    Returns:
        Samples at 16 kHz; `None` for an utterance that is silent, longer than 30 s, or has non-finite samples.
    """
    real = torch.arange(audio.shape[1], device=audio.device) < torch.tensor(lengths, device=audio.device).unsqueeze(1)
    # With TF32 a GPU would compute the convolution in 10 bits, with noise at that level.
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        wave = torchaudio.functional.resample(audio * real, KOKORO_RATE, RATE, lowpass_filter_width=16)
    loudness = wave.unflatten(1, (-1, _BLOCK)).square().mean(-1).sqrt()
    limit = (loudness.amax(1, keepdim=True) * 10 ** (_QUIET_DB / 20)).clamp(min=_SILENT)
    heard = loudness > limit  # false everywhere if any sample is NaN or infinite, since the limit is then too
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

"""Features of a batch of waveforms on the device, with a hop length and a mel bank for each."""

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch.nn import functional as F

from citrinet import CitrinetFeatureExtractor
from citrinet.feature_extraction_citrinet import LOG_GUARD, STD_GUARD
from citrinet.training.voice import warped_mel_filters

WARP_STEP = 0.0125  # of the logarithm
WARPS = np.exp(WARP_STEP * np.arange(-26, 27))  # 0.72 to 1.38; the middle one changes nothing


def warp_index(warp: ArrayLike) -> NDArray[np.int64]:
    """The index in `WARPS` that is nearest to each factor."""
    places = np.rint(np.log(warp) / WARP_STEP).astype(np.int64) + len(WARPS) // 2
    return np.clip(places, 0, len(WARPS) - 1)


class FrontEnd:
    """
    [`CitrinetFeatureExtractor`] in batches, with the same features for the extractor's own hop length and mel bank.

    Args:
        extractor: feature extractor to reproduce; its `frontend` must be `nemo-2.5`.
        device: device of the computation.

    Raises:
        ValueError: if the extractor has another front end.
    """

    def __init__(self, extractor: CitrinetFeatureExtractor, device: torch.device):
        if extractor.frontend != "nemo-2.5":
            raise ValueError(f"the front end {extractor.frontend!r} is not computed in batches: take 'nemo-2.5'.")
        self.hop_length, self.preemphasis = extractor.hop_length, extractor.preemphasis
        self.n_fft, self.multiple = extractor.n_fft, extractor.pad_to_multiple_of
        self.window = torch.from_numpy(extractor.window).to(device)
        banks = np.stack([warped_mel_filters(extractor, float(warp)) for warp in WARPS])
        self.banks = torch.from_numpy(banks).to(device)  # (W, bins, mels)

    def __call__(
        self,
        waves: torch.Tensor,
        lengths: torch.Tensor,
        frames: torch.Tensor,
        longest: int,
        hop: torch.Tensor | None = None,
        warp: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """
        Compute features; nothing is read back from the device.

        Args:
            waves: (B, N) float32.
            lengths: (B,) int64, samples.
            frames: (B,) int64, `lengths // hop`.
            longest: the largest of `frames`.
            hop: (B,) samples from one frame to the next, integer or not, by default the extractor's hop length.
            warp: (B,) int64 indices in `WARPS`, by default no warping.

        Returns:
            (B, T, mels) float32, mean 0 and deviation 1 over an utterance's frames and 0 after them, and (B, T) bool,
            True at its frames. T is `longest`, rounded up to the extractor's multiple.
        """
        total = -(-longest // self.multiple) * self.multiple
        places = torch.arange(total, device=waves.device)
        spectrum = torch.fft.rfft(self._framed(self._emphasized(waves, lengths), places, hop), n=self.n_fft)
        power = torch.view_as_real(spectrum).square().sum(dim=-1)
        banks = self.banks[len(WARPS) // 2] if warp is None else self.banks[warp]
        mask = places < frames[:, None]
        return self._normalized(torch.log(power @ banks + LOG_GUARD), mask, frames), mask

    def _emphasized(self, waves: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        emphasized = torch.cat([waves[:, :1], waves[:, 1:] - self.preemphasis * waves[:, :-1]], dim=1)
        return emphasized * (torch.arange(waves.shape[1], device=waves.device) < lengths[:, None])

    def _framed(self, samples: torch.Tensor, places: torch.Tensor, hop: torch.Tensor | None) -> torch.Tensor:
        """(B, N) -> (B, T, win_length): windowed frames whose centres are `hop` samples apart."""
        width, size = len(self.window), samples.shape[1]
        padded = F.pad(samples, (width // 2, width))
        step = torch.full_like(samples[:, 0], self.hop_length) if hop is None else hop
        starts = (places * step[:, None]).round().long().clamp(max=size)
        rows = torch.arange(len(samples), device=samples.device)[:, None]
        return padded.unfold(1, width, 1)[rows, starts] * self.window

    @staticmethod
    def _normalized(log_mel: torch.Tensor, mask: torch.Tensor, frames: torch.Tensor) -> torch.Tensor:
        """Normalise to mean 0 and deviation 1; the mean is removed twice, so that a band of rounding errors is 0."""
        weight, count = mask[..., None].to(log_mel.dtype), frames[:, None, None].to(log_mel.dtype)
        for _ in range(2):
            log_mel = (log_mel - (log_mel * weight).sum(dim=1, keepdim=True) / count) * weight
        deviation = (log_mel.square().sum(dim=1, keepdim=True) / (count - 1).clamp(min=1)).sqrt()
        return log_mel / (deviation + STD_GUARD)

"""Feature extractor: waveform to normalised log-mel features, with NeMo's arithmetic."""

import itertools
import math
import os
from collections.abc import Sized
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F
from transformers import BatchFeature, SequenceFeatureExtractor
from transformers.audio_utils import mel_filter_bank
from transformers.utils import FEATURE_EXTRACTOR_NAME
from transformers.utils.hub import cached_file

from .audio_citrinet import check_samples
from .batching_citrinet import batches

BLOCK_FRAMES = 6000  # one minute, computed at a time
BATCH_FRAMES = 60000  # ten minutes of blocks, computed together on a device
FRAMES_STEP = 128  # their blocks are padded to a multiple: cuFFT makes a plan for each number of frames
LOG_GUARD = 2.0**-24
STD_GUARD = 1e-5
# A mel band that varies less than this, as above 4 kHz in a telephone call, holds only rounding errors. There the mean
# is exact, so that the order of summation does not matter; in all other bands it is rounded as in NeMo.
EMPTY_RANGE = 1e-3
FRONTENDS = ("nemo-2.5", "nemo-2.4")
_HUB_ARGUMENTS = {
    "cache_dir",
    "force_download",
    "local_files_only",
    "proxies",
    "revision",
    "subfolder",
    "token",
}


class CitrinetFeatureExtractor(SequenceFeatureExtractor):
    r"""
    Compute log-mel features like NeMo's `AudioToMelSpectrogramPreprocessor` with `normalize: per_feature`.

    The features of an utterance do not depend on the other utterances in its batch.

    Args:
        feature_size (`int`, defaults to 80): Number of mel bins, on the Slaney scale with Slaney normalisation.
        sampling_rate (`int`, defaults to 16000): Sampling rate in Hz.
        hop_length (`int`, defaults to 160): Number of samples between frames.
        win_length (`int`, defaults to 400): Length of the (symmetric Hann) window in samples.
        n_fft (`int`, defaults to 512): Size of the Fourier transform.
        preemphasis (`float`, defaults to 0.97): Coefficient of the pre-emphasis filter; 0 disables it.
        pad_to_multiple_of (`int`, defaults to 16): Frames are padded with zeros to a multiple of this.
        frontend (`str`, defaults to `"nemo-2.5"`):
            NeMo version whose arithmetic is used. `"nemo-2.5"` (and later) pads the signal with zeros and gives
            `n // hop_length` frames; `"nemo-2.4"` (and earlier) pads by reflection and gives one frame more. A `.nemo`
            file does not record the version of its training, so `preprocessor_config.json` does.
    """

    model_input_names = ["input_features", "attention_mask"]

    def __init__(
        self,
        feature_size: int = 80,
        sampling_rate: int = 16000,
        hop_length: int = 160,
        win_length: int = 400,
        n_fft: int = 512,
        preemphasis: float = 0.97,
        pad_to_multiple_of: int = 16,
        frontend: str = "nemo-2.5",
        padding_value: float = 0.0,
        **kwargs: Any,
    ):
        if frontend not in FRONTENDS:
            raise ValueError(f"`frontend` is {frontend!r}; it must be one of {', '.join(FRONTENDS)}.")
        super().__init__(feature_size=feature_size, sampling_rate=sampling_rate, padding_value=padding_value, **kwargs)
        self.hop_length = hop_length
        self.win_length = win_length
        self.n_fft = n_fft
        self.preemphasis = preemphasis
        self.pad_to_multiple_of = pad_to_multiple_of
        self.frontend = frontend
        self.return_attention_mask = True
        # Transformers leaves these two names out of the saved configuration.
        self.window = torch.hann_window(win_length, periodic=False).numpy()
        self.mel_filters = mel_filter_bank(
            num_frequency_bins=n_fft // 2 + 1,
            num_mel_filters=feature_size,
            min_frequency=0.0,
            max_frequency=sampling_rate / 2,
            sampling_rate=sampling_rate,
            norm="slaney",
            mel_scale="slaney",
        ).astype(np.float32)

    @classmethod
    def get_feature_extractor_dict(
        cls, pretrained_model_name_or_path: str | os.PathLike[str], **kwargs: Any
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """
        Read the settings for `from_pretrained`.

        They come from `preprocessor_config.json` if it exists, otherwise from `processor_config.json`. Transformers
        prefers the second, so that edits of the first would have no effect.
        """
        place = str(pretrained_model_name_or_path)
        if not Path(place).is_file():
            where = {name: value for name, value in kwargs.items() if name in _HUB_ARGUMENTS}
            file = cached_file(place, FEATURE_EXTRACTOR_NAME, _raise_exceptions_for_missing_entries=False, **where)
            place = place if file is None else str(file)
        return super().get_feature_extractor_dict(place, **kwargs)

    def __call__(
        self,
        raw_speech: Any,
        sampling_rate: int | None = None,
        padding: bool | str = True,
        max_length: int | None = None,
        truncation: bool = False,
        pad_to_multiple_of: int | None = None,
        return_attention_mask: bool | None = None,
        return_tensors: str | None = None,
        device: str | torch.device | None = None,
    ) -> BatchFeature:
        """
        Compute features for one waveform or a batch of them.

        Args:
            raw_speech: One waveform (n,), a batch (B, n), or a list of waveforms, each mono or stereo; arrays,
                tensors or lists of numbers, float or integer.
            sampling_rate (`int`, *optional*): Sampling rate of the waveforms in Hz, checked against the model's.
            padding, max_length, truncation, pad_to_multiple_of, return_attention_mask, return_tensors:
                As in [`SequenceFeatureExtractor.pad`], counted in frames.
            device (`str` or `torch.device`, *optional*):
                Device on which all waveforms are computed together, such as `"cuda"`; `"pt"` tensors stay there. By
                default each is computed separately on the CPU. Both give the same values up to rounding.

        Returns:
            `BatchFeature`: `input_features` (B, T, feature_size) float32 and `attention_mask` (B, T) int32.

        Raises:
            ValueError: if the sampling rate is not the model's, audio is shorter than one hop, or samples are NaN or
                infinite.
        """
        if sampling_rate is not None and sampling_rate != self.sampling_rate:
            raise ValueError(
                f"audio of {sampling_rate} Hz given to a model of {self.sampling_rate} Hz: resample it first, for "
                "example with `torchaudio.functional.resample`, or call the pipeline, which does."
            )
        multiple = self.pad_to_multiple_of if pad_to_multiple_of is None else pad_to_multiple_of
        waveforms = _as_list(raw_speech)
        if device is None:
            features = [self.extract(waveform) for waveform in waveforms]
        else:
            batch, frames = self._extract_together(waveforms, torch.device(device))
            asked = padding, max_length, truncation, return_attention_mask, return_tensors
            if asked == (True, None, False, None, "pt"):  # these can stay on the device
                mask = torch.arange(batch.shape[1], device=device) < frames[:, None]
                rest = (0, -batch.shape[1] % (multiple or 1))
                padded = {"input_features": F.pad(batch, (0, 0, *rest)), "attention_mask": F.pad(mask.int(), rest)}
                return BatchFeature(padded)
            features = [row[:count] for row, count in zip(batch.cpu().numpy(), frames.tolist(), strict=True)]
        result = self.pad(
            BatchFeature({"input_features": features}),
            padding=padding,
            max_length=max_length,
            truncation=truncation,
            pad_to_multiple_of=multiple,
            return_attention_mask=return_attention_mask,
            return_tensors=return_tensors,
        )
        return result if device is None or return_tensors != "pt" else result.to(device)

    def extract(self, waveform: Any) -> np.ndarray:
        """
        Compute the features of one waveform, without padding frames.

        Args:
            waveform: (n,), (channels, n) or (n, channels), float or integer samples at `sampling_rate`.

        Returns:
            `np.ndarray`: (T, feature_size) float32, mean 0 and variance 1 over time.

        Raises:
            ValueError: if the audio is shorter than one hop or has NaN or infinite samples.
        """
        return self.normalize(self.log_mel(waveform))

    def log_mel(self, waveform: Any) -> torch.Tensor:
        """
        Compute the log-mel spectrogram, the first step of [`extract`]; the waveform is not needed afterwards.

        Args:
            waveform: as in [`extract`].

        Returns:
            `torch.Tensor`: (feature_size, T), computed block by block, so that long audio needs little extra memory.

        Raises:
            ValueError: as in [`extract`].
        """
        samples = torch.from_numpy(self.check(waveform))
        frames = self.count_frames(samples)
        log_mel = torch.empty(self.feature_size, frames)
        for first, last in _blocks(frames):
            log_mel[:, first:last] = self._log_mel_block(self._emphasized(samples, first, last))
        return log_mel

    @staticmethod
    def normalize(log_mel: torch.Tensor) -> np.ndarray:
        """
        Normalise a log-mel spectrogram, the second step of [`extract`]; overwrites its input.

        Args:
            log_mel: (feature_size, T).

        Returns:
            `np.ndarray`: (T, feature_size) float32, mean 0 and (unbiased) standard deviation 1 over time; a single
            frame, which has no deviation, becomes 0.
        """
        frames = log_mel.shape[1]
        low, high = log_mel.aminmax(dim=1, keepdim=True)
        mean = log_mel.sum(dim=1, keepdim=True) / frames
        rounding = log_mel.sum(dim=1, keepdim=True, dtype=torch.float64) / frames - mean
        centered = log_mel.sub_(mean).sub_(rounding.float() * (high - low < EMPTY_RANGE))
        deviation = (centered.square().sum(dim=1, keepdim=True) / max(frames - 1, 1)).sqrt()
        return centered.div_(deviation + STD_GUARD).T.contiguous().numpy()

    def check(self, waveform: Any) -> np.ndarray:
        """
        Convert a waveform to mono float32 and check that [`extract`] accepts it.

        Args:
            waveform: (n,), (channels, n) or (n, channels), float or integer samples at `sampling_rate`.

        Returns:
            `np.ndarray`: (n,) float32.

        Raises:
            ValueError: if the audio is shorter than one hop or has NaN or infinite samples.
        """
        return check_samples(waveform, self.hop_length, self.sampling_rate)

    def count_frames(self, samples: Sized) -> int:
        """Number of feature frames for samples (n,)."""
        return len(samples) // self.hop_length + (self.frontend == "nemo-2.4")

    def _emphasized(self, samples: torch.Tensor, first: int, last: int) -> torch.Tensor:
        """Return the pre-emphasised samples that frames [first, last) need, padded beyond both ends."""
        around = self.n_fft // 2
        start, stop = first * self.hop_length - around, (last - 1) * self.hop_length + self.n_fft - around
        part = samples[max(start - 1, 0) : stop]
        emphasized = torch.cat([part[:1], part[1:] - self.preemphasis * part[:-1]])[start > 0 :]
        reflect = self.frontend == "nemo-2.4" and len(samples) > around  # shorter audio cannot be reflected
        padding = (max(-start, 0), max(stop - len(samples), 0))
        return F.pad(emphasized[None], padding, mode="reflect" if reflect else "constant")[0]

    def _log_mel_block(self, emphasized: torch.Tensor) -> torch.Tensor:
        """(..., m) -> (..., feature_size, T), rounded at the same steps as NeMo: the network amplifies last bits."""
        spectrum = torch.stft(
            emphasized,
            self.n_fft,
            self.hop_length,
            self.win_length,
            window=send(torch.from_numpy(self.window), emphasized.device),
            center=False,
            return_complex=True,
        )
        real, imaginary = torch.view_as_real(spectrum).square_().unbind(dim=-1)
        power = (real + imaginary).sqrt_().square_()
        if power.is_cuda:  # where the user may have enabled TF32, which has 10 bits, for float32 products
            power = power.double()
        filters = send(torch.from_numpy(self.mel_filters), power.device)
        energy = (filters.T.to(power.dtype) @ power).float()
        return torch.log_(energy.add_(LOG_GUARD))

    def _extract_together(self, waveforms: list[Any], device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
        """Compute features (B, T, feature_size) on a device, padded with zeros, and the number of frames of each."""
        samples = [torch.from_numpy(self.check(waveform)) for waveform in waveforms]
        counts = [self.count_frames(part) for part in samples]
        frames = send(torch.tensor(counts), device)
        log_mel = torch.zeros(len(samples), self.feature_size, max(counts), device=device)
        blocks = ((row, *block) for row, count in enumerate(counts) for block in _blocks(count))
        for batch in batches(blocks, lambda block: block[2] - block[1], BATCH_FRAMES, BATCH_FRAMES):
            computed = self._log_mel_block(self._emphasized_together(samples, batch, device))
            for block, (row, first, last) in zip(computed, batch, strict=True):
                log_mel[row, :, first:last] = block[:, : last - first]
        return self._normalize_together(log_mel, frames), frames

    def _emphasized_together(
        self, samples: list[torch.Tensor], blocks: list[tuple[int, int, int]], device: torch.device
    ) -> torch.Tensor:
        """[`_emphasized`] for blocks, each (index of the samples, first frame, last frame): (B, m) on a device."""
        around = self.n_fft // 2
        spans = [
            (first * self.hop_length - around, (last - 1) * self.hop_length + self.n_fft - around)
            for _, first, last in blocks
        ]
        frames = max(last - first for _, first, last in blocks)
        frames += -frames % FRAMES_STEP
        width = (frames - 1) * self.hop_length + self.n_fft
        lengths = [len(samples[index]) for index, *_ in blocks]
        # One more sample on the left, which the first emphasised one needs; pinned memory for asynchronous copies.
        raw = torch.empty(len(blocks), 1 + width, pin_memory=device.type == "cuda")
        for row, (index, *_), (start, stop), length in zip(raw, blocks, spans, lengths, strict=True):
            low, high = max(start - 1, 0), min(stop, length)
            row[: low - start + 1] = 0.0
            row[low - start + 1 : high - start + 1] = samples[index][low:high]
            row[high - start + 1 :] = 0.0
        raw = raw.to(device, non_blocking=True)
        emphasized = raw[:, 1:] - self.preemphasis * raw[:, :-1]
        begin, end = send(torch.tensor([[start for start, _ in spans], lengths]), device)[..., None]
        place = begin + torch.arange(width, device=device)
        inside = (place >= 0) & (place < end)
        if self.frontend == "nemo-2.4":
            mirrored = torch.where(place < end, place.abs(), 2 * (end - 1) - place)
            emphasized = emphasized.gather(1, (mirrored - begin).clamp_(0, width - 1))
            inside |= end > around
        return emphasized.masked_fill_(~inside, 0.0)

    @staticmethod
    def _normalize_together(log_mel: torch.Tensor, frames: torch.Tensor) -> torch.Tensor:
        """
        [`normalize`] for a batch: (B, feature_size, T), number of valid frames (B,) -> (B, T, feature_size).

        The rounding error of a mean is the mean of the centred values, so that no device needs float64.
        """
        count = frames[:, None, None]
        outside = torch.arange(log_mel.shape[2], device=log_mel.device) >= count
        spread = log_mel.masked_fill(outside, -math.inf).amax(dim=2, keepdim=True)
        spread -= log_mel.masked_fill(outside, math.inf).amin(dim=2, keepdim=True)
        mean = log_mel.masked_fill_(outside, 0.0).sum(dim=2, keepdim=True) / count
        centered = log_mel.sub_(mean).masked_fill_(outside, 0.0)
        rounding = centered.sum(dim=2, keepdim=True) / count
        centered.sub_(rounding * (spread < EMPTY_RANGE)).masked_fill_(outside, 0.0)
        deviation = (centered.square().sum(dim=2, keepdim=True) / (count - 1).clamp(min=1)).sqrt_()
        return centered.div_(deviation + STD_GUARD).transpose(1, 2).contiguous()


def send(values: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Copy to a device; to a GPU from pinned memory, because from other memory it waits for the GPU's earlier work."""
    if device.type != "cuda" or values.device.type != "cpu":
        return values.to(device)
    return values.pin_memory().to(device, non_blocking=True)


def _blocks(frames: int) -> list[tuple[int, int]]:
    """[first, last) frames of the blocks that are computed at a time."""
    bounds: list[int] = np.linspace(0, frames, -(-frames // BLOCK_FRAMES) + 1).astype(int).tolist()
    return list(itertools.pairwise(bounds))


def _as_list(raw_speech: Any) -> list[Any]:
    """Convert one waveform or a batch to a list of waveforms; a two-dimensional array is a batch."""
    if hasattr(raw_speech, "ndim"):
        return [raw_speech] if raw_speech.ndim == 1 else list(raw_speech)
    return [raw_speech] if len(raw_speech) == 0 or np.isscalar(raw_speech[0]) else list(raw_speech)


__all__ = ["CitrinetFeatureExtractor", "send"]

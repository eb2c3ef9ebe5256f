"""Kokoro in PyTorch, in batches."""

import random
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from ..utterance import Utterance
from .fetch import MODEL
from .network import FRAME, RATE, Kokoro
from .prompts import Prompts
from .sound import LONGEST, finish
from .voice import Spoken
from .weights import read_weights

_TEXTS = 256  # texts that are encoded at once
_WIDTHS = 16  # on a GPU, frames of a batch are a multiple of this: cuDNN needs a setup for every size


class _Read(NamedTuple):
    """An encoded utterance."""

    utterance: Utterance
    style: Tensor  # (256,)
    prosody: Tensor  # (tokens, 640)
    sound: Tensor  # (tokens, 512)
    durations: Tensor  # (tokens,)
    frames: int


class TorchVoice:
    """
    The synthesiser in PyTorch: in float32 on a CPU, its decoder in float16 on a GPU.

    Utterances are encoded a few thousand at a time, sorted by duration, and spoken in batches of similar length.

    Args:
        folder: folder of Kokoro, see [`fetch`].
        device: PyTorch device.
        noise: whether voiceless sounds have noise in their source, as in the original; without it the output is
            deterministic.
    """

    def __init__(self, folder: Path, device: str = "cpu", noise: bool = True):
        self._prompts = Prompts(folder)
        self._device = torch.device(device)
        self._noise = noise
        self._network = Kokoro()
        self._network.load_state_dict(read_weights(folder / MODEL))
        self._network.to(self._device).eval()
        on_cpu = self._device.type == "cpu"
        # On a GPU seven minutes of audio, whose largest tensors have 1 GB; on a CPU batches bring no gain.
        self._read_at_once, self._frames_at_once = (8, 256) if on_cpu else (4096, 16384)
        self._width = 1 if on_cpu else _WIDTHS
        self._half = None if on_cpu else torch.float16

    @torch.inference_mode()
    def speak(self, utterances: Iterable[Utterance]) -> Iterator[list[Spoken]]:
        """Speak utterances in batches, in random order within every few thousand utterances."""
        utterances, order = iter(utterances), random.Random(0)
        while chunk := list(islice(utterances, self._read_at_once)):
            read, left_out = self._read_all(chunk)
            batches = list(self._batches(read))
            order.shuffle(batches)
            if left_out:
                yield [(utterance, None) for utterance in left_out]
            for batch in batches:
                audio = self._speak(batch)
                samples = finish(audio, [row.frames * FRAME for row in batch])
                yield [(row.utterance, piece) for row, piece in zip(batch, samples, strict=True)]

    def _read_all(self, chunk: list[Utterance]) -> tuple[list[_Read], list[Utterance]]:
        """Encode texts, the longest utterance first; also returns the utterances that cannot be spoken."""
        prompts = [(utterance, self._prompts(utterance)) for utterance in chunk]
        asked = [(utterance, *prompt) for utterance, prompt in prompts if prompt]
        asked.sort(key=lambda item: len(item[1]))
        read = [row for start in range(0, len(asked), _TEXTS) for row in self._read(asked[start : start + _TEXTS])]
        left_out = [utterance for utterance, prompt in prompts if prompt is None]
        limit = LONGEST * RATE // FRAME
        left_out += [row.utterance for row in read if row.frames > limit]
        return sorted((row for row in read if row.frames <= limit), key=lambda row: -row.frames), left_out

    def _read(self, asked: list[tuple[Utterance, list[int], np.ndarray]]) -> Iterator[_Read]:
        tokens = pad_sequence([torch.tensor(ids) for _, ids, _ in asked], batch_first=True).to(self._device)
        lengths = torch.tensor([len(ids) for _, ids, _ in asked])
        styles = torch.from_numpy(np.stack([style for *_, style in asked])).to(self._device)
        speeds = torch.tensor([utterance.speed for utterance, *_ in asked], device=self._device)
        prosody, sound, durations = self._network.encode(tokens, lengths, styles, speeds)
        frames = durations.sum(1).tolist()
        for row, ((utterance, ids, _), count) in enumerate(zip(asked, frames, strict=True)):
            said = slice(len(ids))
            yield _Read(utterance, styles[row], prosody[row, said], sound[row, said], durations[row, said], count)

    def _batches(self, read: list[_Read]) -> Iterator[list[_Read]]:
        start = 0
        while start < len(read):
            rows = max(1, self._frames_at_once // self._rounded(read[start].frames))
            yield read[start : start + rows]
            start += rows

    def _rounded(self, frames: int) -> int:
        return -(-frames // self._width) * self._width

    def _speak(self, batch: list[_Read]) -> Tensor:
        """(batch, samples) at 24 kHz."""
        lengths = torch.tensor([row.frames for row in batch])
        width = self._rounded(int(lengths.max()))
        prosody = torch.stack([_spread(row.prosody, row, width) for row in batch])
        sound = torch.stack([_spread(row.sound, row, width) for row in batch])
        styles = torch.stack([row.style for row in batch])
        return self._network.speak(prosody, sound, lengths, styles, self._noise, self._half)


def _spread(said: Tensor, row: _Read, width: int) -> Tensor:
    """(tokens, channels) to (width, channels): repeat each token for all its frames, then pad with zeros."""
    frames = said.repeat_interleave(row.durations, dim=0, output_size=row.frames)
    return F.pad(frames, (0, 0, 0, width - row.frames))

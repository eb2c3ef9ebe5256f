"""
Make new utterances from pieces of recordings: new sentences in the voices and rooms of the recordings.

A network overfits to a small number of sentences. Forced alignment with the package's own model finds the characters in
the recordings; a sentence is then put together from a speaker's syllables, in runs that are as long as possible, as in
unit selection. Source: on-the-fly aligned data augmentation (arXiv:2104.01393).
"""

import random
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torchaudio.functional import forced_align
from tqdm.auto import tqdm

import citrinet
from citrinet.checkpoint import load_network, load_processor

from ..utterance import spoken
from .augmentation import RATE
from .data import SPLICED, Recording
from .syllables import read

# Samples by which a piece starts before the frame in which the model writes its character. Spliced sentences are
# recognised best with this value: 20 % of characters wrong in 39 of them; 39 % with 1280 and 73 % with 0 in 84.
EARLIER = 2240
REACH, WINDOW = 200, 160  # samples in which to search for the quietest place, and over which to measure it
LOUDNESS_WINDOW = 320  # samples
FADE = 160  # samples over which two pieces blend
LONGEST_RUN = 6  # syllables
CHARACTERS = (3, 22)  # minimum and maximum of a sentence
FEWEST = 20  # minimum recordings of a voice
BATCH = 16  # recordings that are aligned together


@dataclass
class Voice:
    """
    The recordings of one speaker.

    Args:
        tags: category -> label.
        speaker: name of the speaker.
        pieces: samples of each recording, its syllables, and the start of each syllable and the end of the last.
        places: syllable -> (recording, index of the syllable).
    """

    tags: dict[str, str]
    speaker: str
    pieces: list[tuple[NDArray[np.int16], list[str], list[int]]] = field(default_factory=list)
    places: dict[str, list[tuple[int, int]]] = field(default_factory=lambda: defaultdict(list))

    def add(self, samples: NDArray[np.int16], syllables: list[str], cuts: list[int]) -> None:
        """Add a recording."""
        for place, syllable in enumerate(syllables):
            self.places[syllable].append((len(self.pieces), place))
        self.pieces.append((samples, syllables, cuts))

    def say(self, wanted: list[str], rng: random.Random) -> list[NDArray[np.int16]] | None:
        """Find pieces for these syllables; `None` if one was not recorded, or nearly each would be a separate piece."""
        pieces, count = [], len(wanted)
        while wanted:
            places = self.places.get(wanted[0])
            if not places:
                return None
            runs = [(self._run(place, wanted), place) for place in rng.sample(places, min(10, len(places)))]
            longest = max(length for length, _ in runs)
            length, (index, start) = rng.choice([run for run in runs if run[0] >= min(longest, 2)])
            samples, _, cuts = self.pieces[index]
            pieces.append(samples[cuts[start] : cuts[start + length]])
            wanted = wanted[length:]
        return pieces if len(pieces) <= 0.8 * count + 1 else None

    def _run(self, place: tuple[int, int], wanted: list[str]) -> int:
        """Number of the wanted syllables that follow each other from a place on."""
        index, start = place
        heard = self.pieces[index][1][start : start + LONGEST_RUN]
        pairs = zip(heard, wanted, strict=False)
        return next((count for count, (a, b) in enumerate(pairs) if a != b), min(len(heard), len(wanted)))


def splice(
    recordings: Sequence[Recording], texts: Sequence[str], count: int, device: torch.device, seed: int = 0
) -> list[Recording]:
    """
    Make sentences from the syllables of recordings.

    Args:
        recordings: recordings with their speakers; speakers with few recordings are left out.
        texts: sentences to choose from, with markers.
        count: number of utterances. There are fewer if more than two in three sentences cannot be made.
        device: device for the alignment.
        seed: random seed.
    """
    voices: dict[tuple[str, ...], Voice] = {}
    alignment = tqdm(find_cuts(recordings, device), "alignment", len(recordings), disable=None)
    for recording, cuts in zip(recordings, alignment, strict=True):
        if cuts is not None:
            key = (recording.speaker, *recording.tags.values())
            voice = voices.setdefault(key, Voice(recording.tags, recording.speaker))
            voice.add(recording.samples, read(spoken(recording.text)), cuts)
    chosen = [voice for voice in voices.values() if len(voice.pieces) >= FEWEST]
    sayable = [text for text in dict.fromkeys(texts) if CHARACTERS[0] <= len(spoken(text)) <= CHARACTERS[1]]
    rng, made = random.Random(seed), []
    syllables = cache(lambda text: read(spoken(text)))
    for _ in tqdm(range(3 * count if chosen and sayable else 0), "splices", disable=None):
        text, voice = rng.choice(sayable), rng.choice(chosen)
        if pieces := voice.say(syllables(text), rng):
            made.append(Recording(SPLICED, join(pieces), text, voice.tags, speaker=voice.speaker))
        if len(made) == count:
            break
    return made


def join(pieces: Sequence[NDArray[np.int16]]) -> NDArray[np.int16]:
    """Join pieces to one waveform, with short cross-fades."""
    joined, end = np.zeros(sum(map(len, pieces)), np.float32), 0
    for piece in pieces:
        fade = min(FADE, end, len(piece))
        ramp = np.linspace(0, 1, fade, dtype=np.float32)
        joined[end - fade : end] *= 1 - ramp
        joined[end - fade : end] += piece[:fade] * ramp
        joined[end : end - fade + len(piece)] = piece[fade:]
        end += len(piece) - fade
    return joined[:end].astype(np.int16)


@torch.no_grad()
def find_cuts(recordings: Sequence[Recording], device: torch.device) -> Iterator[list[int] | None]:
    """
    Find the start of each character in recordings.

    Yields:
        For each recording in order, the samples at which characters start, and the end of the last one; `None` if the
        model does not know a character, or has too few frames for the text.
    """
    folder = citrinet.default_model()
    model: Any = load_network(folder)
    model.to(device)
    processor = load_processor(folder)
    step, tokenizer = model.config.inputs_to_logits_ratio, processor.tokenizer
    for start in range(0, len(recordings), BATCH):
        batch = recordings[start : start + BATCH]
        waves = [(recording.samples / 32768).astype(np.float32) for recording in batch]
        logits = model(**processor(waves, sampling_rate=RATE).to(device)).logits.log_softmax(dim=-1).cpu()
        for recording, wave, scores in zip(batch, waves, logits, strict=True):
            ids = tokenizer(spoken(recording.text), add_special_tokens=False)["input_ids"]
            starts = _starts(scores[: len(wave) // step], ids, tokenizer.pad_token_id)
            known = starts is not None and tokenizer.unk_token_id not in ids
            yield _cuts(wave, [step * frame for frame in starts or ()]) if known else None


def _starts(scores: torch.Tensor, ids: list[int], blank: int) -> list[int] | None:
    """The first frame of each token on the best path through (T, V) log-probabilities."""
    if len(scores) < len(ids) + sum(a == b for a, b in pairwise(ids)):
        return None
    path = forced_align(scores[None], torch.tensor([ids], dtype=torch.int32), blank=blank)[0][0]
    begins = (path != blank) & (path != torch.cat([torch.tensor([blank]), path[:-1]]))
    return [int(frame) for frame in begins.nonzero()]


def _cuts(wave: NDArray[np.float32], starts: list[int]) -> list[int]:
    """Convert the samples at which tokens are written to the starts of their sounds, and the end of the last."""
    begin, end = _speech(wave)
    borders = [_quietest(wave, start - EARLIER) for start in starts[1:]]
    return [int(cut) for cut in np.maximum.accumulate([begin, *borders, max(end, *borders, 0)])]


def _speech(wave: NDArray[np.float32]) -> tuple[int, int]:
    """Start and end of speech: all within 30 dB of the loudest 20 ms, plus 40 ms before and after."""
    energy = np.square(wave[: len(wave) // LOUDNESS_WINDOW * LOUDNESS_WINDOW]).reshape(-1, LOUDNESS_WINDOW).mean(axis=1)
    loud = np.flatnonzero(energy >= 1e-3 * energy.max())
    return max(0, (int(loud[0]) - 2) * LOUDNESS_WINDOW), min(len(wave), (int(loud[-1]) + 3) * LOUDNESS_WINDOW)


def _quietest(wave: NDArray[np.float32], place: int) -> int:
    """The place with the lowest energy nearby."""
    start = max(0, min(place - REACH, len(wave) - 2 * WINDOW))
    energy = np.convolve(np.square(wave[start : max(place + REACH, start + 2 * WINDOW)]), np.ones(WINDOW), "valid")
    return start + int(energy.argmin()) + WINDOW // 2

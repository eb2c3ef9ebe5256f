"""All speech as one tensor on the device, and a table of its utterances."""

import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from itertools import chain, pairwise
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from citrinet import CitrinetTokenizer, load_audio
from citrinet.manifest import ManifestEntry, read_manifest
from citrinet.transcript_citrinet import NONE

from ..speech.store import INDEX, SpeechStore
from ..utterance import Utterance, read_utterances, spoken
from .augmentation import RATE, TAPS
from .syllables import usual_readings

HAN = re.compile("[\u4e00-\u9fff]+")
CATEGORIES = ("AGE", "DIALECT", "GENDER")
UNKNOWN = -100  # the label that PyTorch's losses ignore
SYNTHETIC, REAL, SPLICED = "synthetic", "real", "spliced"  # training groups; all others are for validation
SHORTEST, LONGEST = 0.3, 16.0  # seconds
RATES = (0.7, 11.0)  # characters per second; outside this range the speech does not fit the text
BLOCK = 1 << 26  # samples that are copied to the device at a time


@dataclass
class Recording:
    """
    A recording and its labels.

    Args:
        group: one of the three training groups, or the name of a validation set.
        samples: (n,) int16 at 16 kHz.
        text: target text, with entity markers.
        tags: category -> label, if known.
        child: pitch factor that turns the voice into a child's.
        speaker: name of the speaker, if known.
    """

    group: str
    samples: NDArray[np.int16]
    text: str
    tags: dict[str, str]
    child: float = 1.0
    speaker: str = ""


def read_speech(folder: Path, texts: Sequence[Path]) -> list[Recording]:
    """
    Read the speech that step 2 has made so far.

    Args:
        folder: folder of a [`~mandarin_small.speech.store.SpeechWriter`].
        texts: files of utterances. Those with a `set` are for validation, with a group for each set.

    Raises:
        OSError: if there is no speech, or a file of utterances is missing.
        ValueError: if a line is not an utterance.
    """
    if not (folder / INDEX).exists():
        raise OSError(f"{folder} holds no speech: make some first (the step `speech`).")
    store = SpeechStore(folder)
    utterances = chain.from_iterable(map(read_utterances, texts))
    recordings = [_synthetic(utterance, store[utterance.id]) for utterance in utterances if utterance.id in store]
    return [recording for recording in recordings if _is_plausible(recording)]


def _synthetic(utterance: Utterance, samples: NDArray[np.int16]) -> Recording:
    labels = {"AGE": utterance.age, "DIALECT": utterance.dialect, "GENDER": utterance.gender}
    tags = {category: label for category, label in labels.items() if label}
    group = utterance.set.split("/")[0] if utterance.set else SYNTHETIC
    return Recording(group, samples, utterance.text, tags, utterance.child, utterance.speaker)


def _is_plausible(recording: Recording) -> bool:
    seconds = len(recording.samples) / RATE
    return SHORTEST <= seconds <= LONGEST and RATES[0] < len(spoken(recording.text)) / seconds < RATES[1]


def read_recordings(manifest: Path, group: str) -> list[Recording]:
    """
    Read the recordings of a NeMo manifest whose texts are Chinese characters, with or without markers.

    Args:
        manifest: JSON lines with `audio_filepath`, `text` and, if known, `age`, `gender`, `dialect` and `speaker`.
        group: as in [`Recording`].

    Raises:
        OSError, ValueError: if the manifest or a recording cannot be read, or there is no such text.
    """
    entries = [entry for entry in read_manifest(manifest) if HAN.fullmatch(spoken(entry.text or ""))]
    if not entries:
        raise ValueError(f"{manifest}: no line has a `text` of Chinese characters alone, markers aside.")
    with ThreadPoolExecutor() as pool:
        return list(pool.map(partial(_real, group), entries))


def _real(group: str, entry: ManifestEntry) -> Recording:
    waveform = load_audio(entry.segment, RATE)
    if len(waveform) < SHORTEST * RATE:
        raise ValueError(f"{entry.segment} is shorter than {SHORTEST} s: leave it out of the manifest.")
    samples = np.clip(np.rint(waveform * 32768), -32768, 32767).astype(np.int16)
    speaker = str(entry.columns.get("speaker", ""))
    return Recording(group, samples, str(entry.text), entry.tags(list(CATEGORIES)), speaker=speaker)


@dataclass
class Sequences:
    """
    Labels of all utterances, concatenated on the device.

    Args:
        flat: (n,) int64.
        starts, lengths: (N,) start and number of the labels of each utterance.
    """

    flat: torch.Tensor
    starts: NDArray[np.int64]
    lengths: NDArray[np.int64]

    @classmethod
    def of(cls, sequences: Sequence[Sequence[int]], device: torch.device) -> "Sequences":
        """Put sequences of labels on a device."""
        lengths = np.array([len(sequence) for sequence in sequences], np.int64)
        flat = np.array([label for sequence in sequences for label in sequence] + [0], np.int64)
        return cls(torch.from_numpy(flat).to(device), np.cumsum(lengths) - lengths, lengths)


class Labels:
    """
    Converts texts to labels.

    Args:
        tokenizer: tokenizer of the CTC head.
        texts: training texts, with markers.
    """

    def __init__(self, tokenizer: CitrinetTokenizer, texts: Sequence[str]):
        self.tokenizer = tokenizer
        readings = usual_readings([spoken(text) for text in texts])
        numbers = {syllable: number for number, syllable in enumerate(sorted(set(readings.values())))}
        self.syllables = {character: numbers[syllable] for character, syllable in readings.items()}
        self.syllable_count = len(numbers)

    def tokens(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text; a character that the tokenizer does not know becomes the unknown token."""
        encoded = self.tokenizer.backend_tokenizer.encode_batch(list(texts), add_special_tokens=False)
        return [one.ids for one in encoded]

    def sounds(self, texts: Sequence[str]) -> list[list[int]]:
        """Syllable ids of each text; characters that are not in the training texts are left out."""
        return [[self.syllables[c] for c in spoken(text) if c in self.syllables] for text in texts]


@dataclass
class Corpus:
    """
    All speech, on a device.

    Args:
        audio: (n,) int16, the recordings with `TAPS` zeros around each.
        groups: (N,) names of groups.
        starts, lengths: (N,) start and length of each recording in `audio`, in samples.
        children: (N,) pitch factors.
        tags: (N, categories) classes, `UNKNOWN` if not known.
        tokens, syllables: labels of the CTC heads.
        frames: (N,) minimum number of frames for CTC.
        tag_labels: category -> labels of the classes in `tags`.
        texts: target texts.
    """

    audio: torch.Tensor
    groups: NDArray[np.str_]
    starts: NDArray[np.int64]
    lengths: NDArray[np.int64]
    children: NDArray[np.float64]
    tags: NDArray[np.int64]
    tokens: Sequences
    syllables: Sequences
    frames: NDArray[np.int64]
    tag_labels: dict[str, list[str]]
    texts: list[str] = field(repr=False)

    @classmethod
    def of(cls, recordings: Sequence[Recording], labels: Labels, device: torch.device) -> "Corpus":
        """Put recordings on a device."""
        texts = [recording.text for recording in recordings]
        lengths = np.array([len(recording.samples) for recording in recordings], np.int64)
        starts = TAPS + np.cumsum(lengths + TAPS) - (lengths + TAPS)
        tokens = labels.tokens(texts)
        repeats = [sum(a == b for a, b in pairwise(row)) for row in tokens]
        tag_labels = _tag_labels(recordings)
        return cls(
            _upload(recordings, int((lengths + TAPS).sum()) + TAPS, device),
            np.array([recording.group for recording in recordings]),
            starts,
            lengths,
            np.array([recording.child for recording in recordings]),
            _classes(recordings, tag_labels),
            Sequences.of(tokens, device),
            Sequences.of(labels.sounds(texts), device),
            np.array([len(row) for row in tokens], np.int64) + np.array(repeats, np.int64),
            tag_labels,
            texts,
        )

    def members(self, group: str) -> NDArray[np.int64]:
        """Indices of the utterances of a group."""
        return np.flatnonzero(self.groups == group)

    def validation_sets(self) -> list[str]:
        """Names of the validation groups."""
        return sorted(set(self.groups.tolist()) - {SYNTHETIC, REAL, SPLICED})


def _tag_labels(recordings: Sequence[Recording]) -> dict[str, list[str]]:
    """Labels in the training groups: NONE first, the others sorted."""
    trained = [recording.tags for recording in recordings if recording.group in (SYNTHETIC, REAL, SPLICED)]
    found = {category: {tags[category] for tags in trained if category in tags} for category in CATEGORIES}
    return {category: [NONE, *sorted(labels - {NONE})] for category, labels in found.items()}


def _classes(recordings: Sequence[Recording], tag_labels: dict[str, list[str]]) -> NDArray[np.int64]:
    numbers = {category: {label: i for i, label in enumerate(labels)} for category, labels in tag_labels.items()}
    rows = [[numbers[c].get(recording.tags.get(c, ""), UNKNOWN) for c in CATEGORIES] for recording in recordings]
    return np.array(rows, np.int64)


def _upload(recordings: Sequence[Recording], size: int, device: torch.device) -> torch.Tensor:
    """Copy in large blocks, which avoids a second copy of everything in memory and 100,000 small transfers."""
    audio, place = torch.empty(size, dtype=torch.int16, device=device), 0
    for block in _blocks(recordings):
        audio[place : place + len(block)].copy_(torch.from_numpy(block))
        place += len(block)
    return audio


def _blocks(recordings: Sequence[Recording]) -> Iterator[NDArray[np.int16]]:
    silence = np.zeros(TAPS, np.int16)
    parts, count = [silence], TAPS
    for recording in recordings:
        parts += [recording.samples, silence]
        count += len(recording.samples) + TAPS
        if count > BLOCK:
            yield np.concatenate(parts)
            parts, count = [], 0
    if parts:
        yield np.concatenate(parts)

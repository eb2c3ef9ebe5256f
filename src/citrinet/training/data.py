"""From examples to batches."""

from collections.abc import Iterator, MutableMapping
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset
from transformers import BatchFeature
from transformers.trainer_pt_utils import LengthGroupedSampler

from ..audio_citrinet import AudioSegment, load_audio
from ..processing_citrinet import CitrinetProcessor
from .augmentation import Augmentation
from .features import FeatureFolder, Features
from .labels import label_ids
from .selection import Example, feasible, select, tag_labels
from .sources import read_source
from .voice import Voice

_NAMES = ("auto_map", "processor_class")  # settings that saving adds to a front end and that do not affect features
UNKNOWN = -100  # the index that PyTorch's losses ignore
VOICE_TAGS = ("AGE", "GENDER")  # categories that depend on pitch and formants


class UnreadableRecordingError(ValueError):
    """A recording could not be read during a run; the message names it."""


class SpeechDataset(Dataset[dict[str, Any]]):
    """
    Dataset of features and labels, with augmentation.

    Augmentation depends only on seed, epoch and index, so that a resumed run is the same as an uninterrupted one.
    Labels of `VOICE_TAGS` are unknown where the voice changes so much that they may be wrong.

    Args:
        examples: the utterances.
        processor: makes features and labels.
        tag_labels: category -> labels, in the order of the head's outputs.
        augmentation: augmentation of the waveforms; `None` for validation.
        seed: random seed of the augmentation.
        variants: number of augmented versions of an utterance to compute and cache (float16, 0.96 MB per minute and
            version), used in turn; 0 computes a new version every time and caches none.
        cache: folder of the cache, shared by processes and later runs; by default the memory of this process.
    """

    def __init__(
        self,
        examples: list[Example],
        processor: CitrinetProcessor,
        tag_labels: dict[str, list[str]] | None = None,
        augmentation: Augmentation | None = None,
        seed: int = 0,
        variants: int = 0,
        cache: str | Path | None = None,
    ):
        self.examples = examples
        self.processor = processor
        self.augmentation = augmentation
        self.seed = seed
        self.variants = variants
        self._epoch = torch.zeros((), dtype=torch.long)
        self._epoch.share_memory_()  # type: ignore[no-untyped-call]  # also seen by persistent workers
        self._tag_ids = {
            name: {label: i for i, label in enumerate(labels)} for name, labels in (tag_labels or {}).items()
        }
        self._labels = [label_ids(processor.tokenizer, example.text) for example in examples]
        self._kept: MutableMapping[str, Features] = {} if cache is None else FeatureFolder(cache)

    @property
    def epoch(self) -> int:
        """Index of the pass over the data."""
        return int(self._epoch)

    @epoch.setter
    def epoch(self, epoch: int) -> None:
        self._epoch.fill_(epoch)

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """`input_features` (T, F) float32, `labels` (L,), and `tag_labels`, category -> class or -100."""
        version = self.epoch % self.variants if self.variants else self.epoch
        tags = self.examples[index].tags
        if not self._chance(index, version)[0].is_like_the_speakers:
            tags = {name: label for name, label in tags.items() if name.upper() not in VOICE_TAGS}
        return {
            "input_features": self._features(index, version),
            "labels": self._labels[index],
            "tag_labels": {name: ids.get(tags.get(name, ""), UNKNOWN) for name, ids in self._tag_ids.items()},
        }

    def _chance(self, index: int, version: int) -> tuple[Voice, np.random.Generator]:
        """The voice of a version, and the generator for its other random choices."""
        rng = np.random.default_rng((self.seed, version, index))
        return Voice() if self.augmentation is None else self.augmentation.draw_voice(rng), rng

    def _features(self, index: int, version: int) -> Features:
        if not self.variants:
            return self._compute(index, version)
        key = self._key(index, version)
        features = self._kept.get(key)
        if features is None:
            features = self._kept[key] = self._compute(index, version).astype(np.float16)
        return features.astype(np.float32)

    def _key(self, index: int, version: int) -> str:
        """Hash of all that a version's features depend on, so that recipes can share a folder."""
        front_end = self.processor.feature_extractor.to_dict().items()
        front_end = sorted((name, value) for name, value in front_end if name not in _NAMES)
        settings = front_end, self.augmentation, self.seed, version, index
        return blake2b(repr((_identity(self.examples[index].audio), settings)).encode(), digest_size=16).hexdigest()

    def _compute(self, index: int, version: int) -> Features:
        extractor, audio = self.processor.feature_extractor, self.examples[index].audio
        try:
            samples = load_audio(audio, extractor.sampling_rate)
            if self.augmentation is not None:
                voice, rng = self._chance(index, version)
                samples = self.augmentation(samples, extractor.sampling_rate, rng, voice)
                extractor = voice.hear(extractor)
            features: Features = extractor.extract(samples)
        except (OSError, ValueError) as error:
            reason = " ".join(str(error).removeprefix(f"{audio}: ").split())
            raise UnreadableRecordingError(f"{audio}: {reason}") from error
        return features


def _identity(audio: Any) -> tuple[Any, ...]:
    """Identity of a recording, or part of it; a file that is rewritten gets a different one."""
    segment = audio if isinstance(audio, AudioSegment) else AudioSegment(audio)
    source, part = segment.source, (segment.offset, segment.duration, segment.channel)
    if isinstance(source, bytes):
        return blake2b(source).hexdigest(), part
    path = Path(source)
    if not path.is_file():  # a URL
        return str(source), part
    facts = path.stat()
    return str(path.resolve()), facts.st_size, facts.st_mtime_ns, part


@dataclass(frozen=True)
class Collator:
    """Collates items into a batch; pads features to the front end's multiple of frames, and labels with -100."""

    processor: CitrinetProcessor

    def __call__(self, items: list[dict[str, Any]]) -> dict[str, Any]:
        """Items of a [`SpeechDataset`] -> arguments of [`CitrinetForCTC`]."""
        extractor = self.processor.feature_extractor
        batch = extractor.pad(
            BatchFeature({"input_features": [item["input_features"] for item in items]}),
            padding=True,
            pad_to_multiple_of=extractor.pad_to_multiple_of,
            return_attention_mask=True,
            return_tensors="pt",
        )
        labels = [torch.tensor(item["labels"], dtype=torch.long) for item in items]
        inputs = {**batch, "labels": torch.nn.utils.rnn.pad_sequence(labels, batch_first=True, padding_value=UNKNOWN)}
        if items[0]["tag_labels"]:
            names = items[0]["tag_labels"]
            inputs["tag_labels"] = {name: torch.tensor([item["tag_labels"][name] for item in items]) for name in names}
        return inputs


class EpochSampler(LengthGroupedSampler):
    """Sampler of batches of similar length, in an order that depends only on seed and epoch, for resuming."""

    def __init__(self, batch_size: int, examples: list[Example], seed: int):
        super().__init__(batch_size, lengths=[round(100 * example.duration) for example in examples])
        self.seed = seed
        self.epoch = 0

    def __iter__(self) -> Iterator[int]:
        self.generator = torch.Generator().manual_seed(self.seed + self.epoch)
        indices: Iterator[int] = super().__iter__()  # type: ignore[no-untyped-call]
        return indices


__all__ = [
    "UNKNOWN",
    "Collator",
    "EpochSampler",
    "Example",
    "SpeechDataset",
    "UnreadableRecordingError",
    "feasible",
    "read_source",
    "select",
    "tag_labels",
]

"""From manifests and Hub datasets to batches."""

import io
import itertools
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, MutableMapping
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
from torch.utils.data import Dataset
from transformers import BatchFeature
from transformers.trainer_pt_utils import LengthGroupedSampler

from ..audio_citrinet import load_audio
from ..manifest import ManifestEntry, read_manifest
from ..processing_citrinet import CitrinetProcessor
from ..transcript_citrinet import NONE, target_text
from .augmentation import Augmentation

UNKNOWN = -100  # the index that PyTorch's losses leave out


@dataclass
class Example:
    """
    One utterance to train on.

    Args:
        audio: what [`load_audio`] takes.
        text: the target of the CTC head.
        duration: seconds.
        tags: category -> label, where known.
    """

    audio: Any
    text: str
    duration: float
    tags: dict[str, str] = field(default_factory=dict)


@dataclass
class Selection:
    """Examples that were taken, and how many were not, by reason."""

    examples: list[Example]
    dropped: Counter = field(default_factory=Counter)

    def __str__(self) -> str:
        hours = sum(example.duration for example in self.examples) / 3600
        lines = [f"{len(self.examples)} utterances, {hours:.2f} h"]
        return "\n".join([*lines, *(f"  dropped {count}: {reason}" for reason, count in self.dropped.most_common())])


def read_source(source: str | Path | dict[str, Any]) -> Iterator[ManifestEntry]:
    """
    Read what a recipe names as data.

    Args:
        source: a NeMo manifest, or a Hub dataset as keywords of `datasets.load_dataset` (`path`, `name`, `split`, ...)
            with `audio_column` and `text_column` (by default `audio` and `text`) beside them.

    Raises:
        ValueError: if a Hub dataset lacks the columns.
    """
    if isinstance(source, dict):
        yield from _hub_entries(dict(source))
    else:
        yield from read_manifest(source)


def _hub_entries(options: dict[str, Any]) -> Iterator[ManifestEntry]:
    from datasets import Audio, load_dataset

    audio, text = options.pop("audio_column", "audio"), options.pop("text_column", "text")
    dataset = load_dataset(**options)
    if isinstance(dataset, dict):
        raise ValueError(f"{options['path']} has the splits {sorted(dataset)}: name one with `split`.")
    missing = {audio, text} - set(dataset.column_names)
    if missing:
        raise ValueError(
            f"{options['path']} has the columns {dataset.column_names}, not {sorted(missing)}: name the right ones "
            "with `audio_column` and `text_column`."
        )
    for row in dataset.cast_column(audio, Audio(decode=False)):
        recording = row.pop(audio)
        yield ManifestEntry(
            recording["bytes"] or Path(recording["path"]), row.pop(text), row.get("duration"), columns=row
        )


def select(
    entries: Iterable[ManifestEntry],
    categories: list[str],
    min_duration: float = 0.1,
    max_duration: float = 16.0,
    keep_tags: bool = False,
    keep_entities: bool = True,
) -> Selection:
    """
    Choose what can be trained on.

    Args:
        entries: what the manifests hold.
        categories: tag categories whose labels are wanted.
        min_duration: seconds below which an utterance is dropped.
        max_duration: seconds above which it is dropped.
        keep_tags: whether speaker tags stay in the target of the CTC head.
        keep_entities: whether entity markers do.

    Returns:
        [`Selection`].
    """
    selection = Selection([])
    for entry in entries:
        text = target_text(entry.text or "", keep_tags, keep_entities)
        duration = entry.duration if entry.duration is not None else _duration(entry.audio)
        if not text:
            selection.dropped["no text"] += 1
        elif duration is None:
            selection.dropped["audio that cannot be read"] += 1
        elif duration < min_duration:
            selection.dropped[f"shorter than {min_duration:g} s"] += 1
        elif duration > max_duration:
            selection.dropped[f"longer than {max_duration:g} s"] += 1
        else:
            selection.examples.append(Example(entry.audio, text, duration, entry.tags(categories)))
    return selection


def _duration(audio: Any) -> float | None:
    try:
        return soundfile.info(io.BytesIO(audio) if isinstance(audio, bytes) else audio).duration
    except (OSError, RuntimeError, TypeError):
        pass
    try:
        return len(load_audio(audio)) / 16000
    except (OSError, ValueError):
        return None


def tag_labels(examples: list[Example], categories: list[str]) -> dict[str, list[str]]:
    """Labels of each category that the examples hold: NONE first, then sorted, categories sorted too."""
    found = {category: {e.tags[category] for e in examples if category in e.tags} for category in sorted(categories)}
    return {category: [NONE, *sorted(labels - {NONE})] for category, labels in found.items()}


class FeatureFolder(MutableMapping[str, np.ndarray]):
    """
    Arrays in a folder, one file each. Processes may share it: a file appears when it is complete.

    Args:
        folder: made if it is not there.
    """

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)

    def _path(self, key: str) -> Path:
        return self.folder / key[:2] / f"{key}.npy"

    def __getitem__(self, key: str) -> np.ndarray:
        try:
            return np.load(self._path(key), allow_pickle=False)
        except FileNotFoundError:
            raise KeyError(key) from None

    def __setitem__(self, key: str, array: np.ndarray) -> None:
        path = self._path(key)
        path.parent.mkdir(exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, suffix=".part", delete=False) as part:
            np.save(part, array)
        Path(part.name).replace(path)

    def __delitem__(self, key: str) -> None:
        self._path(key).unlink()

    def __iter__(self) -> Iterator[str]:
        return (path.stem for path in self.folder.glob("*/*.npy"))

    def __len__(self) -> int:
        return sum(1 for _ in self)


class SpeechDataset(Dataset):
    """
    Features and labels of examples, augmented.

    Chance depends on seed, pass and index alone, so that training goes on after an interruption as if there had been
    none.

    Args:
        examples: the utterances.
        processor: makes features and labels.
        tag_labels: category -> labels, in the order of the head's outputs.
        augmentation: what happens to the waveforms; none for validation.
        seed: of the augmentation.
        variants: how many augmented versions of an utterance to compute and keep (float16, 0.96 MB for a minute and
            version), to be taken in turn; 0 computes a new one every time and keeps none.
        cache: a folder to keep them in, shared by processes and later runs; in memory if not given.
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
        self.epoch = 0
        self._tag_ids = {
            name: {label: i for i, label in enumerate(labels)} for name, labels in (tag_labels or {}).items()
        }
        self._labels = [processor.tokenizer(e.text, add_special_tokens=False)["input_ids"] for e in examples]
        self._kept: MutableMapping[str, np.ndarray] = {} if cache is None else FeatureFolder(cache)

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """`input_features` (T, F) float32, `labels` (L,), and `tag_labels`, category -> class or -100."""
        tags = self.examples[index].tags
        return {
            "input_features": self._features(index),
            "labels": self._labels[index],
            "tag_labels": {name: ids.get(tags.get(name, ""), UNKNOWN) for name, ids in self._tag_ids.items()},
        }

    def _features(self, index: int) -> np.ndarray:
        if not self.variants:
            return self._compute(index, self.epoch)
        version = self.epoch % self.variants
        key = self._key(index, version)
        features = self._kept.get(key)
        if features is None:
            features = self._kept[key] = self._compute(index, version).astype(np.float16)
        return features.astype(np.float32)

    def _key(self, index: int, version: int) -> str:
        """Stands for all that a version's features depend on, so that a folder never gives those of another recipe."""
        audio = self.examples[index].audio
        content = audio if isinstance(audio, bytes) else str(audio).encode()
        settings = self.processor.feature_extractor.to_json_string(), self.augmentation, self.seed, version, index
        return blake2b(content + repr(settings).encode(), digest_size=16).hexdigest()

    def _compute(self, index: int, version: int) -> np.ndarray:
        extractor = self.processor.feature_extractor
        samples = load_audio(self.examples[index].audio, extractor.sampling_rate)
        if self.augmentation is not None:
            rng = np.random.default_rng((self.seed, version, index))
            samples = self.augmentation(samples, extractor.sampling_rate, rng)
        return extractor.extract(samples)


@dataclass(frozen=True)
class Collator:
    """Pads features to whole multiples and labels with -100."""

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
    """Batches of similar length in an order that follows from seed and epoch, so that a resumed epoch has it again."""

    def __init__(self, batch_size: int, examples: list[Example], seed: int):
        super().__init__(batch_size, lengths=[round(100 * example.duration) for example in examples])
        self.seed = seed
        self.epoch = 0

    def __iter__(self):
        self.generator = torch.Generator().manual_seed(self.seed + self.epoch)
        return super().__iter__()


def feasible(selection: Selection, processor: CitrinetProcessor, samples_per_frame: int) -> Selection:
    """
    Drop utterances whose text has more tokens than the network gives frames: CTC has no path for them.

    Args:
        selection: what is there.
        processor: counts the tokens.
        samples_per_frame: audio samples for each frame of logits.
    """
    kept, dropped = [], Counter(selection.dropped)
    rate = processor.feature_extractor.sampling_rate
    for example in selection.examples:
        ids = processor.tokenizer(example.text, add_special_tokens=False)["input_ids"]
        repeats = sum(a == b for a, b in itertools.pairwise(ids))
        if not ids:
            dropped["text without a token"] += 1
        elif len(ids) + repeats > example.duration * rate / samples_per_frame:
            dropped["more tokens than frames"] += 1
        else:
            kept.append(example)
    return replace(selection, examples=kept, dropped=dropped)

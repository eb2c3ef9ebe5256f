"""Select utterances for training, and count why others are dropped."""

import io
import itertools
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import soundfile

from ..audio_citrinet import AudioSegment, load_audio
from ..manifest import ManifestEntry
from ..processing_citrinet import CitrinetProcessor
from ..transcript_citrinet import NONE, target_text
from .labels import label_ids

NOT_FOUND = "no such file"


@dataclass
class Example:
    """
    One utterance for training.

    Args:
        audio: audio for [`load_audio`].
        text: target of the CTC head, with markers.
        duration: length in seconds.
        tags: category -> label, where known.
    """

    audio: Any
    text: str
    duration: float
    tags: dict[str, str] = field(default_factory=dict)


@dataclass
class Selection:
    """
    Selected examples, and the number of dropped ones.

    Args:
        examples: the selected utterances.
        dropped: reason -> number of utterances.
        missing: one recording that does not exist, as an example.
    """

    examples: list[Example]
    dropped: "Counter[str]" = field(default_factory=Counter)
    missing: str | None = None

    def __str__(self) -> str:
        hours = sum(example.duration for example in self.examples) / 3600
        lines = [f"{len(self.examples)} utterances, {hours:.2f} h"]
        return "\n".join([*lines, *(f"  dropped {reason}" for reason in self.reasons())])

    def reasons(self) -> list[str]:
        """Reasons why utterances were dropped, most frequent first."""
        such = {NOT_FOUND: f" (such as {self.missing})"}
        return [f"{count}: {reason}{such.get(reason, '')}" for reason, count in self.dropped.most_common()]


def select(
    entries: Iterable[ManifestEntry],
    categories: list[str],
    min_duration: float = 0.1,
    max_duration: float = 16.0,
    keep_tags: bool = False,
    keep_entities: bool = True,
) -> Selection:
    """
    Select the utterances that can be used for training.

    Args:
        entries: entries of manifests.
        categories: tag categories whose labels are needed.
        min_duration: seconds below which an utterance is dropped.
        max_duration: seconds above which it is dropped.
        keep_tags: whether to keep speaker tags in the target of the CTC head.
        keep_entities: whether to keep entity markers in it.

    Returns:
        [`Selection`].
    """
    selection = Selection([])
    for entry in entries:
        text = target_text(entry.text or "", keep_tags, keep_entities)
        if not text:
            selection.dropped["no text"] += 1
        elif not _is_there(entry.audio):
            selection.dropped[NOT_FOUND] += 1
            selection.missing = selection.missing or str(entry.audio)
        elif (duration := _duration(entry.segment)) is None:
            selection.dropped["audio that cannot be read"] += 1
        elif duration < min_duration:
            selection.dropped[f"shorter than {min_duration:g} s"] += 1
        elif duration > max_duration:
            selection.dropped[f"longer than {max_duration:g} s"] += 1
        else:
            selection.examples.append(Example(entry.segment, text, duration, entry.tags(categories)))
    return selection


def _is_there(audio: Any) -> bool:
    """Whether a file exists; true for bytes, and for URLs, which are checked when they are read."""
    if isinstance(audio, bytes) or str(audio).startswith(("http://", "https://")):
        return True
    return Path(audio).is_file()


def _duration(segment: AudioSegment) -> float | None:
    """Length of a segment in seconds, by default to the end of its file; `None` if the audio cannot be read."""
    if segment.duration is not None:
        return segment.duration
    source = io.BytesIO(segment.source) if isinstance(segment.source, bytes) else segment.source
    try:
        return float(soundfile.info(source).duration) - segment.offset
    except (OSError, RuntimeError, TypeError):  # not a format that soundfile reads
        pass
    try:
        return len(load_audio(segment)) / 16000
    except (OSError, ValueError):
        return None


def tag_labels(examples: list[Example], categories: list[str]) -> dict[str, list[str]]:
    """Labels of each category in the examples: NONE first, the others sorted; categories are sorted too."""
    found = {category: {e.tags[category] for e in examples if category in e.tags} for category in sorted(categories)}
    return {category: [NONE, *sorted(labels - {NONE})] for category, labels in found.items()}


def feasible(
    selection: Selection, processor: CitrinetProcessor, samples_per_frame: int, max_speed: float = 1.0
) -> Selection:
    """
    Drop utterances whose text needs more frames than the network outputs: CTC has no path for them.

    Args:
        selection: the selected utterances.
        processor: processor with the tokenizer.
        samples_per_frame: audio samples for each frame of logits.
        max_speed: largest tempo factor in training, which leaves the fewest frames.
    """
    kept, dropped = [], Counter(selection.dropped)
    frame_rate = processor.feature_extractor.sampling_rate / samples_per_frame / max_speed
    at_speed = "" if max_speed == 1.0 else f" at a speed of {max_speed:g}"
    for example in selection.examples:
        ids = label_ids(processor.tokenizer, example.text)
        repeats = sum(a == b for a, b in itertools.pairwise(ids))
        if not ids:
            dropped["no character that the tokenizer knows"] += 1
        elif len(ids) + repeats > example.duration * frame_rate:
            dropped[f"more tokens than frames{at_speed}"] += 1
        else:
            kept.append(example)
    return replace(selection, examples=kept, dropped=dropped)

"""What a model wrote against what a manifest says: edits, tags, entities, and how sure the figures are."""

import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from ..error_rates import Edits, character_edits, count_edits, find_corpus_markers, normalize
from ..manifest import ManifestEntry
from ..result_citrinet import RecognitionResult
from ..transcript_citrinet import NONE, Marker, is_entity_marker, parse_transcript, split_words

SOURCES = ("head", "text", "merged")

CONVENTIONS = {
    "normalisation": "NFKC, lower case, letters, combining marks and digits only: no punctuation, symbols or spaces. "
    "The same for both sides. Numbers are not spelled out.",
    "cer": "Edits divided by characters of the reference, markers left out, both summed over the recordings.",
    "wer": "Edits divided by words of the reference. Each Chinese or Japanese character is a word (mixed error rate); "
    "elsewhere words are separated by spaces. Markers are left out.",
    "wer_tagged": "The same, with each marker counted as a word: entity markers if the manifest's texts contain any, "
    "and tags if they contain any.",
    "tags": "Share of correct labels among the recordings that have a label in the manifest. Merged is the head's "
    "label, or the one in the text if the head's is NONE; no label counts as NONE. A source that never gives a label "
    "has no accuracy. The majority class is the manifest's most frequent label, given to every recording.",
    "entities": "An entity is correct if a reference entity of the same recording has its type and normalised text; "
    "each counts once.",
    "calibration": "Expected calibration error of the characters that a model wrote: the mean difference between "
    "confidence and the share of correct characters, over 15 bins of equal width.",
    "intervals": "95 % percentile intervals of a bootstrap over recordings, with the same resamples for every model.",
    "real_time_factor": "Seconds of computing for each second of audio, including reading and resampling the files, "
    "not including loading the model.",
}


class Rate(NamedTuple):
    """A ratio of sums over recordings and its 95 % interval; none where there is nothing to divide by."""

    value: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Annotation:
    """
    What one side says of a recording.

    Args:
        text: with markers.
        transcript: without.
        markers: those in `text`.
        entities: (type, normalised text), in order.
        tags: source (`head`, `text`, `merged`) -> category -> label. A manifest has `merged` only.
    """

    text: str
    transcript: str
    markers: list[Marker]
    entities: list[tuple[str, str]]
    tags: dict[str, dict[str, str]]


@dataclass(frozen=True)
class ErrorRate:
    """An error rate over recordings, and the edits it counts."""

    rate: Rate
    edits: Edits


@dataclass(frozen=True)
class TagScore:
    """
    How well one category is told.

    Args:
        count: recordings whose label the manifest knows.
        majority_label: the most frequent of these labels.
        majority_accuracy: what always answering it would reach.
        accuracy: source -> share of right labels, none for a source that never says anything.
        labels: names of the rows and columns of `confusion`.
        confusion: source -> counts, a row for each label of the manifest, a column for each answer.
    """

    count: int
    majority_label: str
    majority_accuracy: float
    accuracy: dict[str, Rate | None]
    labels: list[str]
    confusion: dict[str, list[list[int]]]


@dataclass(frozen=True)
class EntityCounts:
    """Entities of the manifest, of the model, and those in both."""

    reference: int
    predicted: int
    matched: int


@dataclass(frozen=True)
class EntityScore:
    """How well entities are found, over all types and for each."""

    counts: EntityCounts
    precision: Rate
    recall: Rate
    f1: Rate
    types: dict[str, dict[str, Any]]


def annotate_references(entries: Sequence[ManifestEntry], labels: list[str], categories: list[str]) -> list[Annotation]:
    """
    Take what a manifest says apart.

    Args:
        entries: with `text`.
        labels: known tag labels, found where they are glued to one another too.
        categories: tag categories.
    """
    annotations = []
    for entry, markers in zip(
        entries, find_corpus_markers([entry.text or "" for entry in entries], labels), strict=True
    ):
        parsed = parse_transcript(entry.text or "", markers, categories)
        tags = {**parsed.tags, **entry.tags(categories)}
        entities = [_entity(entity.type, entity.text) for entity in parsed.entities]
        annotations.append(Annotation(parsed.text, parsed.transcript, markers, entities, {"merged": tags}))
    return annotations


def annotate_outputs(
    outputs: Sequence[RecognitionResult], labels: list[str], categories: list[str]
) -> list[Annotation]:
    """
    Take what a recogniser returned apart.

    Args:
        outputs: the results of a recogniser. Entities and tags of a model that is no Citrinet, whose results hold none,
            are read from the text.
        labels: known tag labels.
        categories: tag categories.
    """
    annotations = []
    for output, markers in zip(
        outputs, find_corpus_markers([output["text"] for output in outputs], labels), strict=True
    ):
        parsed = parse_transcript(output["text"], markers, categories)
        if output["transcript"] == output["text"] and not output["tags"]:
            entities = [_entity(entity.type, entity.text) for entity in parsed.entities]
            tags = {"text": parsed.tags, "merged": parsed.tags}
            annotations.append(Annotation(parsed.text, parsed.transcript, markers, entities, tags))
            continue
        entities = [_entity(entity["type"], entity["text"]) for entity in output["entities"]]
        tags = {
            "head": {category: tag["head"] for category, tag in output["tags"].items() if tag["head"]},
            "text": {category: tag["text"] for category, tag in output["tags"].items() if tag["text"]},
            "merged": {category: tag["label"] for category, tag in output["tags"].items()},
        }
        annotations.append(Annotation(output["text"], output["transcript"], markers, entities, tags))
    return annotations


def transcript_edits(references: Sequence[Annotation], hypotheses: Sequence[Annotation]) -> list[Edits]:
    """Edits between the normalised characters of the transcripts, recording by recording."""
    return [
        character_edits(reference.transcript, hypothesis.transcript)
        for reference, hypothesis in zip(references, hypotheses, strict=True)
    ]


def word_edits(references: Sequence[Annotation], hypotheses: Sequence[Annotation], kept: set[str]) -> list[Edits]:
    """
    Edits between words, recording by recording.

    Args:
        references: what the manifest says.
        hypotheses: what the model says.
        kept: which markers are words too. With [`written_kinds`] of the references, a manifest that marks no entities,
            or that keeps tags in columns, does not make a model wrong that writes them.
    """
    return [
        count_edits(words(reference.text, reference.markers, kept), words(hypothesis.text, hypothesis.markers, kept))
        for reference, hypothesis in zip(references, hypotheses, strict=True)
    ]


def written_kinds(annotations: Iterable[Annotation]) -> set[str]:
    """Which of `entities` and `tags` stand in the texts as markers."""
    return {_kind(marker) for annotation in annotations for marker in annotation.markers}


def words(text: str, markers: list[Marker], kept: set[str]) -> list[str]:
    """
    Normalised words of a text, and its markers of the kinds to be kept, each one word.

    Args:
        text: with markers.
        markers: where they stand.
        kept: of `entities` and `tags`.
    """
    found: list[str] = []
    start = 0
    for marker in [*markers, Marker(len(text), len(text), "")]:
        spoken = unicodedata.normalize("NFKC", text[start : marker.start])
        found += [normalize(spoken[first:last]) for first, last in split_words(spoken)]
        found += [marker.name] if _kind(marker) in kept else []
        start = marker.end
    return [word for word in found if word]


def error_rate(edits: Sequence[Edits], resamples: int = 1000, seed: int = 0) -> ErrorRate:
    """Edits of all recordings for each unit of their references."""
    total = Edits(*(sum(getattr(e, name) for e in edits) for name in Edits.__dataclass_fields__))
    return ErrorRate(rate([e.errors for e in edits], [e.length for e in edits], resamples, seed), total)


def tag_score(
    category: str,
    references: Sequence[Annotation],
    hypotheses: Sequence[Annotation],
    resamples: int = 1000,
    seed: int = 0,
) -> TagScore | None:
    """
    Score one category of tags.

    Returns:
        [`TagScore`], or none if the manifest knows no label of this category.
    """
    truth = [annotation.tags["merged"].get(category) for annotation in references]
    counts = Counter(label for label in truth if label)
    if not counts:
        return None
    said = {
        source: [annotation.tags.get(source, {}).get(category) for annotation in hypotheses]
        for source in SOURCES
        if any(category in annotation.tags.get(source, {}) for annotation in hypotheses)
    }
    pairs = {
        source: Counter((label, answer or NONE) for label, answer in zip(truth, answers, strict=True) if label)
        for source, answers in said.items()
    }
    seen = set(counts).union(*(set(pair) for counter in pairs.values() for pair in counter))
    labels = sorted(seen, key=lambda label: (label == NONE, label))
    known = [label is not None for label in truth]
    accuracy: dict[str, Rate | None] = dict.fromkeys(SOURCES)
    for source, answers in said.items():
        right = [label == (answer or NONE) for label, answer in zip(truth, answers, strict=True)]
        accuracy[source] = rate(right, known, resamples, seed)
    confusion = {
        source: [[counter[row, column] for column in labels] for row in labels] for source, counter in pairs.items()
    }
    majority, most = min(counts.items(), key=lambda item: (-item[1], item[0]))
    return TagScore(sum(known), majority, most / sum(known), accuracy, labels, confusion)


def entity_score(
    references: Sequence[Annotation], hypotheses: Sequence[Annotation], resamples: int = 1000, seed: int = 0
) -> EntityScore | None:
    """
    Score entities: type and normalised text must agree, each entity counts once.

    Returns:
        [`EntityScore`], or none if the manifest marks no entities.
    """
    if not any(annotation.entities for annotation in references):
        return None
    truth = [Counter(annotation.entities) for annotation in references]
    found = [Counter(annotation.entities) for annotation in hypotheses]
    sides = truth, found, [a & b for a, b in zip(truth, found, strict=True)]
    wanted, predicted, matched = (np.array([counter.total() for counter in side]) for side in sides)
    of_type = [_by_type(side) for side in sides]
    return EntityScore(
        EntityCounts(int(wanted.sum()), int(predicted.sum()), int(matched.sum())),
        precision=rate(matched, predicted, resamples, seed),
        recall=rate(matched, wanted, resamples, seed),
        f1=rate(2 * matched, wanted + predicted, resamples, seed),
        types={name: _type_score(*(counts[name] for counts in of_type)) for name in sorted(of_type[0] | of_type[1])},
    )


def rate(numerators: Any, denominators: Any, resamples: int = 1000, seed: int = 0) -> Rate:
    """
    A ratio of sums with the 95 % percentile interval of a bootstrap over recordings.

    Args:
        numerators: (n,) what each recording adds above the line.
        denominators: (n,) and below.
        resamples: how often n recordings are drawn with replacement.
        seed: of the draws. The same seed and n give the same draws, whatever is counted.

    Returns:
        [`Rate`]. Draws whose denominator is 0 are left out.
    """
    parts = np.stack([np.asarray(numerators, dtype=np.float64), np.asarray(denominators, dtype=np.float64)])
    above, below = parts.sum(axis=1)
    if not below:
        return Rate(None, None, None)
    rng, count = np.random.default_rng(seed), parts.shape[1]
    sums = np.stack([parts[:, rng.integers(count, size=count)].sum(axis=1) for _ in range(resamples)])
    sums = sums[sums[:, 1] > 0]
    low, high = np.percentile(sums[:, 0] / sums[:, 1], [2.5, 97.5])
    return Rate(float(above / below), float(low), float(high))


def _kind(marker: Marker) -> str:
    if is_entity_marker(marker.name):
        return "entities"
    return "tags" if marker.name else ""


def _entity(name: str, text: str) -> tuple[str, str]:
    return name, normalize(text) or text


def _by_type(side: "list[Counter[tuple[str, str]]]") -> "Counter[str]":
    counts: Counter[str] = Counter()
    for entities in side:
        for (name, _), count in entities.items():
            counts[name] += count
    return counts


def _type_score(reference: int, predicted: int, matched: int) -> dict[str, Any]:
    return {
        "reference": reference,
        "predicted": predicted,
        "matched": matched,
        "precision": matched / predicted if predicted else None,
        "recall": matched / reference if reference else None,
        "f1": 2 * matched / (reference + predicted),
    }

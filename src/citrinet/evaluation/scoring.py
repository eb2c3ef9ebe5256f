"""Score outputs against a manifest: edits, tags and entities, with confidence intervals."""

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
    """A ratio of sums over recordings and its 95 % interval; all `None` if the denominator is zero."""

    value: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Annotation:
    """
    Reference or hypothesis of a recording.

    Args:
        text: the text with markers.
        transcript: the text without markers.
        markers: the markers in `text`.
        entities: (type, normalised text), in order.
        tags: source (`head`, `text`, `merged`) -> category -> label. References have only `merged`.
    """

    text: str
    transcript: str
    markers: list[Marker]
    entities: list[tuple[str, str]]
    tags: dict[str, dict[str, str]]


@dataclass(frozen=True)
class ErrorRate:
    """An error rate over recordings, and its edit counts."""

    rate: Rate
    edits: Edits


@dataclass(frozen=True)
class TagScore:
    """
    Scores of one tag category.

    Args:
        count: number of recordings that have a label in the manifest.
        majority_label: the most frequent of these labels.
        majority_accuracy: accuracy of always predicting it.
        accuracy: source -> share of correct labels, `None` for a source that never gives a label.
        labels: names of the rows and columns of `confusion`.
        confusion: source -> counts, with a row per label of the manifest and a column per predicted label.
    """

    count: int
    majority_label: str
    majority_accuracy: float
    accuracy: dict[str, Rate | None]
    labels: list[str]
    confusion: dict[str, list[list[int]]]


@dataclass(frozen=True)
class EntityCounts:
    """Numbers of entities in the manifest, in the model's outputs, and in both."""

    reference: int
    predicted: int
    matched: int


@dataclass(frozen=True)
class EntityScore:
    """Entity scores, over all types and for each type."""

    counts: EntityCounts
    precision: Rate
    recall: Rate
    f1: Rate
    types: dict[str, dict[str, Any]]


def annotate_references(entries: Sequence[ManifestEntry], labels: list[str], categories: list[str]) -> list[Annotation]:
    """
    Make annotations from a manifest.

    Args:
        entries: entries with `text`.
        labels: known tag labels, which are found even without spaces between them.
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
    Make annotations from results of a recogniser.

    Args:
        outputs: the results. For models other than Citrinet, whose results have no entities or tags, they are read from
            the text.
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
    """Count edits between the normalised characters of the transcripts, for each recording."""
    return [
        character_edits(reference.transcript, hypothesis.transcript)
        for reference, hypothesis in zip(references, hypotheses, strict=True)
    ]


def word_edits(references: Sequence[Annotation], hypotheses: Sequence[Annotation], kept: set[str]) -> list[Edits]:
    """
    Count edits between words, for each recording.

    Args:
        references: annotations of the manifest.
        hypotheses: annotations of the model's outputs.
        kept: kinds of markers that count as words. With [`written_kinds`] of the references, entities or tags that a
            model writes are not errors if the manifest's texts never contain them.
    """
    return [
        count_edits(words(reference.text, reference.markers, kept), words(hypothesis.text, hypothesis.markers, kept))
        for reference, hypothesis in zip(references, hypotheses, strict=True)
    ]


def written_kinds(annotations: Iterable[Annotation]) -> set[str]:
    """Return which of `entities` and `tags` the texts contain as markers."""
    return {_kind(marker) for annotation in annotations for marker in annotation.markers}


def words(text: str, markers: list[Marker], kept: set[str]) -> list[str]:
    """
    Return the normalised words of a text, with its markers of the kept kinds as words.

    Args:
        text: text with markers.
        markers: the markers in the text.
        kept: kinds to keep, of `entities` and `tags`.
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
    """Error rate over all recordings: edits per character or word of the references."""
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
        [`TagScore`], or `None` if the manifest has no label of this category.
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
    Score entities: type and normalised text must match, and each entity counts once.

    Returns:
        [`EntityScore`], or `None` if the manifest has no entities.
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
    Compute a ratio of sums with the 95 % percentile interval of a bootstrap over recordings.

    Args:
        numerators: (n,) numerator of each recording.
        denominators: (n,) denominator of each recording.
        resamples: number of times that n recordings are drawn with replacement.
        seed: seed of the draws. The same seed and n give the same draws.

    Returns:
        [`Rate`]. Draws whose denominator is 0 are ignored.
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

"""Run models over a manifest and score their outputs."""

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from ..error_rates import Edits
from ..language_model import DecodingOptions
from ..manifest import ManifestEntry, read_manifest
from ..recognition import ReadAhead, check_model, load_recognizer, readers_for
from ..result_citrinet import RecognitionResult
from . import scoring
from .calibration import Calibration, calibration
from .scoring import CONVENTIONS, Annotation, EntityScore, ErrorRate, TagScore


@dataclass
class Run:
    """
    The outputs of one model.

    Args:
        model: folder or Hub repository of the model.
        tag_labels: category -> labels of its tag heads.
        outputs: index of the manifest's entry -> result.
        failed: index -> reason why the recording could not be read.
        processing_seconds: processing time of all recordings, including reading.
        audio_seconds: length of the audio that was read.
    """

    model: str
    tag_labels: dict[str, list[str]] = field(default_factory=dict)
    outputs: dict[int, RecognitionResult] = field(default_factory=dict)
    failed: dict[int, str] = field(default_factory=dict)
    processing_seconds: float = 0.0
    audio_seconds: float = 0.0


@dataclass(frozen=True)
class ModelResult:
    """
    The scores of one model.

    Args:
        model: folder or Hub repository of the model.
        cer: character error rate.
        wer: word error rate without markers.
        wer_tagged: word error rate with the markers in `Report.markers` as words; `None` if there are none.
        tags: category -> score.
        entities: entity scores; `None` if the manifest has no entities.
        calibration: calibration of the confidence of characters; `None` if the model gives no confidence.
        real_time_factor: processing time per second of audio; `None` if no audio was read.
        processing_seconds: processing time in seconds.
        utterances: for each recording file, offset, duration and channel, and the texts, edits, tags and entities of
            reference and hypothesis.
    """

    model: str
    cer: ErrorRate
    wer: ErrorRate
    wer_tagged: ErrorRate | None
    tags: dict[str, TagScore]
    entities: EntityScore | None
    calibration: Calibration | None
    real_time_factor: float | None
    processing_seconds: float
    utterances: list[dict[str, Any]]


@dataclass(frozen=True)
class Report:
    """
    Scores of one or several models on a manifest.

    Args:
        manifest: the manifest file.
        recordings: number of recordings in the manifest.
        scored: number of recordings that every model transcribed.
        audio_seconds: length of the audio that the first model read.
        failed: `audio` and `error` of the recordings that could not be read.
        markers: which of `entities` and `tags` the texts of the manifest contain.
        models: scores of each model.
        settings: batch size, device and other settings, resamples, seed.
    """

    manifest: str
    recordings: int
    scored: int
    audio_seconds: float
    failed: list[dict[str, str]]
    markers: list[str]
    models: list[ModelResult]
    settings: dict[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """Return the report as JSON values, with its conventions and without the utterances."""
        models = [_model_dict(model) for model in self.models]
        return {**vars(self), "models": models, "conventions": CONVENTIONS}


def evaluate(
    models: Sequence[str],
    manifest: str | Path,
    batch_size: int | None = None,
    device: str = "cpu",
    resamples: int = 1000,
    seed: int = 0,
    precision: str = "float32",
    batch_seconds: float | None = None,
    vad: bool | None = None,
    decoding: DecodingOptions | None = None,
) -> Report:
    """
    Transcribe the recordings of a manifest with each model and score the results.

    Args:
        models: models that [`load_recognizer`] accepts: Citrinets in PyTorch or ONNX, and others for comparison.
        manifest: JSON lines with `audio_filepath` and `text`; markers in the text and columns named like tag
            categories (`gender`, ...) are the reference for entities and tags.
        batch_size: number of recordings in a batch, see [`Recognizer.stream`].
        device: `cpu`, `cuda`, ...
        resamples: number of bootstrap resamples.
        seed: seed of the bootstrap.
        precision: precision of the models in PyTorch, see [`CitrinetInferenceConfig`].
        batch_seconds: seconds of audio in a batch, see [`Recognizer.stream`].
        vad: whether to cut audio at pauses, see [`Recognizer.stream`].
        decoding: decoding options; defaults to those of each model.

    Returns:
        [`Report`]. Recordings that cannot be read are not scored; the report lists them.

    Raises:
        OSError: if the manifest or a model cannot be found.
        ValueError: if the manifest is empty, has lines without `text`, or has no recording that can be read; if a model
            does not recognise speech.
    """
    entries = _read(manifest)
    for model in models:  # all of them before the first one runs
        check_model(model, precision=precision, device=device, citrinet_only=False)
    settings: dict[str, Any] = {
        "batch_size": batch_size,
        "batch_seconds": batch_seconds,
        "device": device,
        "precision": precision,
        "vad": vad,
    }
    runs = [transcribe(model, entries, **settings, decoding=decoding) for model in models]
    settings["decoding"] = (decoding or DecodingOptions()).to_dict()
    return build_report(manifest, entries, runs, settings, resamples, seed)


def transcribe(
    model: str,
    entries: Sequence[ManifestEntry],
    batch_size: int | None = None,
    device: str = "cpu",
    precision: str = "float32",
    batch_seconds: float | None = None,
    vad: bool | None = None,
    decoding: DecodingOptions | None = None,
) -> Run:
    """
    Run one model over the recordings of a manifest.

    Args:
        model: folder or Hub repository.
        entries: entries of the manifest.
        batch_size: number of recordings in a batch, see [`Recognizer.stream`].
        device: `cpu`, `cuda`, ...
        precision: see [`CitrinetInferenceConfig`].
        batch_seconds: seconds of audio in a batch, see [`Recognizer.stream`].
        vad: whether to cut audio at pauses, see [`Recognizer.stream`].
        decoding: decoding options; defaults to those of the model.
    """
    recognizer = load_recognizer(model, precision=precision, device=device, citrinet_only=False, decoder=decoding)
    run = Run(model, recognizer.tag_labels)
    limits: Any = {"batch_size": batch_size, "batch_seconds": batch_seconds}
    segments = [entry.segment for entry in entries]
    readers = readers_for(device)
    ahead = ReadAhead(segments, recognizer.load, recognizer.sampling_rate, readers=readers, **limits)
    with tqdm(total=len(entries), unit="file", desc=model, disable=None) as progress:
        start = time.perf_counter()
        for result in recognizer.stream(iter(ahead), return_timestamps="char", vad=vad, **limits):
            run.outputs.update(ahead.in_order(result))
            progress.update()
        run.processing_seconds = time.perf_counter() - start
    run.failed = {index: _reason(error, entries[index]) for index, error in ahead.failed}
    run.audio_seconds = ahead.seconds
    return run


def _reason(error: Exception, entry: ManifestEntry) -> str:
    """Return an error without the recording's name, which precedes it in the report."""
    return str(error).removeprefix(f"{entry.segment}: ").removeprefix(f"{entry.audio}: ")


def build_report(
    manifest: str | Path,
    entries: Sequence[ManifestEntry],
    runs: Sequence[Run],
    settings: dict[str, Any] | None = None,
    resamples: int = 1000,
    seed: int = 0,
) -> Report:
    """
    Score the outputs of models for the entries of a manifest.

    Args:
        manifest: the manifest file, for the report.
        entries: entries of the manifest, with `text`.
        runs: outputs of each model.
        settings: settings of the runs, for the report.
        resamples: number of bootstrap resamples.
        seed: seed of the bootstrap.

    Raises:
        ValueError: if there is no recording that every model transcribed.
    """
    failed = {index: error for run in runs for index, error in run.failed.items()}
    scored = [index for index in range(len(entries)) if all(index in run.outputs for run in runs)]
    if not scored:
        reasons = "; ".join(f"{entries[index].segment}: {error}" for index, error in sorted(failed.items())[:3])
        raise ValueError(f"{manifest}: none of its {len(entries)} recordings could be read ({reasons}).")
    chosen = [entries[index] for index in scored]
    categories = _categories(entries, runs)
    known = sorted({label for run in runs for labels in run.tag_labels.values() for label in labels})
    references = scoring.annotate_references(chosen, known, categories)
    results = []
    for run in runs:
        outputs = [run.outputs[index] for index in scored]
        labels = [label for names in run.tag_labels.values() for label in names]
        hypotheses = scoring.annotate_outputs(outputs, labels, categories)
        sure = calibration(outputs, [annotation.transcript for annotation in references])
        results.append(_score(run, chosen, references, hypotheses, categories, sure, resamples, seed))
    return Report(
        str(manifest),
        len(entries),
        len(scored),
        runs[0].audio_seconds,
        [{"audio": str(entries[index].segment), "error": error} for index, error in sorted(failed.items())],
        sorted(scoring.written_kinds(references)),
        results,
        {**(settings or {}), "resamples": resamples, "seed": seed},
    )


def _read(manifest: str | Path) -> list[ManifestEntry]:
    entries = read_manifest(manifest)
    without = sum(entry.text is None for entry in entries)
    if without:
        raise ValueError(f"{manifest}: {without} of {len(entries)} lines have no `text` to compare with.")
    return entries


def _categories(entries: Sequence[ManifestEntry], runs: Sequence[Run]) -> list[str]:
    """Tag categories of the heads, and of columns whose values begin with their name (`age`: `AGE_14_25`)."""
    columns = {
        name.upper()
        for entry in entries
        for name, value in entry.columns.items()
        if isinstance(value, str) and value.startswith(f"{name.upper()}_")
    }
    heads = {category for run in runs for category in run.tag_labels}
    return sorted(heads | (columns - {category.upper() for category in heads}))


def _score(
    run: Run,
    entries: Sequence[ManifestEntry],
    references: Sequence[Annotation],
    hypotheses: Sequence[Annotation],
    categories: Sequence[str],
    sure: Calibration | None,
    resamples: int,
    seed: int,
) -> ModelResult:
    characters = scoring.transcript_edits(references, hypotheses)
    words = scoring.word_edits(references, hypotheses, set())
    kinds = scoring.written_kinds(references)
    tagged = scoring.word_edits(references, hypotheses, kinds)
    written = {category for annotation in references for category in annotation.tags["merged"]}
    tags = {
        category: scoring.tag_score(category, references, hypotheses, resamples, seed)
        for category in sorted(written.union(categories))
    }
    return ModelResult(
        run.model,
        scoring.error_rate(characters, resamples, seed),
        scoring.error_rate(words, resamples, seed),
        scoring.error_rate(tagged, resamples, seed) if kinds else None,
        {category: score for category, score in tags.items() if score},
        scoring.entity_score(references, hypotheses, resamples, seed),
        sure,
        run.processing_seconds / run.audio_seconds if run.audio_seconds else None,
        run.processing_seconds,
        [
            _utterance(run.model, *row)
            for row in zip(entries, references, hypotheses, characters, words, tagged, strict=True)
        ],
    )  # fmt: skip


def _utterance(
    model: str,
    entry: ManifestEntry,
    reference: Annotation,
    hypothesis: Annotation,
    characters: Edits,
    words: Edits,
    tagged: Edits,
) -> dict[str, Any]:
    return {
        "model": model,
        "audio": str(entry.audio),
        "offset": entry.offset,
        "duration": entry.duration,
        "channel": entry.channel,
        "reference": {"text": reference.text, "transcript": reference.transcript, "entities": reference.entities,
                      "tags": reference.tags["merged"]},
        "hypothesis": {"text": hypothesis.text, "transcript": hypothesis.transcript, "entities": hypothesis.entities,
                       "tags": hypothesis.tags},
        "cer": asdict(characters),
        "wer": asdict(words),
        "wer_tagged": asdict(tagged),
    }  # fmt: skip


def _model_dict(model: ModelResult) -> dict[str, Any]:
    return {
        "model": model.model,
        "cer": _error_rate_dict(model.cer),
        "wer": _error_rate_dict(model.wer),
        "wer_tagged": model.wer_tagged and _error_rate_dict(model.wer_tagged),
        "tags": {category: _tag_dict(score) for category, score in model.tags.items()},
        "entities": model.entities and _entity_dict(model.entities),
        "calibration": model.calibration and asdict(model.calibration),
        "real_time_factor": model.real_time_factor,
        "processing_seconds": model.processing_seconds,
    }


def _error_rate_dict(error_rate: ErrorRate) -> dict[str, Any]:
    return {**error_rate.rate._asdict(), **asdict(error_rate.edits)}


def _tag_dict(score: TagScore) -> dict[str, Any]:
    return {**vars(score), "accuracy": {source: rate and rate._asdict() for source, rate in score.accuracy.items()}}


def _entity_dict(score: EntityScore) -> dict[str, Any]:
    rates = {name: getattr(score, name)._asdict() for name in ("precision", "recall", "f1")}
    return {**asdict(score.counts), **rates, "types": score.types}

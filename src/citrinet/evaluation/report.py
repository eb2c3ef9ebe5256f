"""Format the scores as Markdown tables, and write the files of a report."""

import json
import tempfile
from pathlib import Path

from .evaluate import Report
from .scoring import CONVENTIONS, SOURCES, Rate


def format_report(report: Report) -> str:
    """Format the scores as Markdown tables, with rates in per cent and their 95 % intervals."""
    head = f"{report.manifest}: {report.scored} of {report.recordings} recordings, {duration(report.audio_seconds)}"
    tables = [_table(*overview(report))]
    if any(model.tags for model in report.models):
        tables.append(_table(*tag_table(report)))
    return "\n\n".join(
        [head, *tables, f"Rates in per cent, with 95 % intervals. Texts are compared as {CONVENTIONS['normalisation']}"]
    )


def overview(report: Report) -> tuple[list[str], list[list[str]]]:
    """Return header and rows of the main table, one row per model."""
    names = ["entity precision", "recall", "F1"] if has_entities(report) else []
    names += ["calibration error"] if has_confidence(report) else []
    header = ["model", "CER", *word_rates(report).values(), *names, "real-time factor"]
    rows = []
    for model in report.models:
        found = [model.entities.precision, model.entities.recall, model.entities.f1] if model.entities else []
        speed = "-" if model.real_time_factor is None else f"{model.real_time_factor:.3g}"
        errors = [getattr(model, key).rate for key in ("cer", *word_rates(report))]
        sure = [f"{100 * model.calibration.error:.1f}" if model.calibration else "-"] if has_confidence(report) else []
        rows.append([model.model, *map(percent, [*errors, *found]), *sure, speed])
    return header, rows


def tag_table(report: Report) -> tuple[list[str], list[list[str]]]:
    """Return header and rows of the table of tag accuracies, one row per category and model."""
    header = ["tag", "recordings", "majority class", "model", *SOURCES]
    rows = []
    for category in tag_categories(report):
        for model in report.models:
            score = model.tags[category]
            majority = f"{100 * score.majority_accuracy:.1f} ({score.majority_label})"
            accuracies = [percent(score.accuracy[source]) for source in SOURCES]
            rows.append([category, str(score.count), majority, model.model, *accuracies])
    return header, rows


def percent(rate: Rate | None) -> str:
    """Format a rate as `12.3 (10.1-14.2)`, in per cent."""
    if rate is None or rate.value is None or rate.low is None or rate.high is None:
        return "-"
    return f"{100 * rate.value:.1f} ({100 * rate.low:.1f}-{100 * rate.high:.1f})"


def write_report(report: Report, folder: str | Path) -> None:
    """
    Write `report.json`, `report.html` (self-contained, with plots) and `utterances.jsonl` (one line per recording).

    Args:
        report: the report.
        folder: output folder, created if it does not exist; each file appears, or replaces an older one, only when it
            is complete.

    Raises:
        ImportError: if a package that the page needs is missing.
        OSError: if the folder cannot be written to.
    """
    from .page import html_page

    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    lines = (json.dumps(utterance, ensure_ascii=False) for model in report.models for utterance in model.utterances)
    _write(target / "utterances.jsonl", "".join(f"{line}\n" for line in lines))
    _write(target / "report.json", json.dumps(report.to_dict(), ensure_ascii=False, indent=2) + "\n")
    _write(target / "report.html", html_page(report))


def tag_categories(report: Report) -> list[str]:
    """Return the tag categories for which the manifest has labels."""
    return list(report.models[0].tags)


def word_rates(report: Report) -> dict[str, str]:
    """Return the available word error rates and their titles."""
    tagged = {"wer_tagged": "WER with tags"} if report.markers else {}
    return {"wer": "WER", **tagged}


def has_entities(report: Report) -> bool:
    """Whether the manifest has entities."""
    return report.models[0].entities is not None


def has_confidence(report: Report) -> bool:
    """Whether any model gives confidences."""
    return any(model.calibration for model in report.models)


def _table(header: list[str], rows: list[list[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    lines = [header, ["-" * width for width in widths], *rows]
    return "\n".join(
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |" for line in lines
    )


def duration(seconds: float) -> str:
    """Format a time as `3 min 5 s`, or `5.2 s`."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{seconds:.1f} s"


def _write(path: Path, text: str) -> None:
    """Write a temporary file, then move it into place."""
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}-") as scratch:
        written = Path(scratch) / path.name
        written.write_text(text, encoding="utf-8")
        written.replace(path)

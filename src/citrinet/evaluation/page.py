"""Render the report as an HTML page with plots."""

import base64
import io
import logging
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

try:
    import jinja2
    import matplotlib
    from matplotlib.figure import Figure
except ModuleNotFoundError as error:
    if error.name not in ("jinja2", "matplotlib"):
        raise
    raise ImportError(f'a report as a page needs {error.name}: pip install "citrinet[evaluate]"') from error

from ..audio_citrinet import AudioSegment
from ..error_rates import Edits, align, normalize
from .evaluate import ModelResult, Report
from .report import duration, has_confidence, has_entities, overview, tag_categories, tag_table, word_rates
from .scoring import SOURCES, Rate

WORST = 20
MAX_TYPES = 12
# The palette of Okabe and Ito, which most colour-blind people can distinguish.
COLOURS = ["#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#f0e442", "#000000"]
EDIT_COLOURS = {"substitutions": "#0072b2", "deletions": "#999999", "insertions": "#e69f00"}
_STYLE: Any = {
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "font.size": 10,
    "svg.hashsalt": "citrinet",  # the same scores give the same file
    "svg.fonttype": "none",  # text is drawn by the browser, in any script
}


def html_page(report: Report) -> str:
    """Render the page: tables, plots as embedded SVG, and the worst recordings with their edits marked."""
    names = _short_names(report)
    # matplotlib warns if a model's name has characters that its font lacks.
    logging.getLogger("matplotlib.font_manager").setLevel(logging.ERROR)
    with matplotlib.rc_context(_STYLE):
        plots = {
            "errors": _image(plot_errors(report, names)),
            "spread": _image(plot_spread(report, names)),
            "tags": _image(plot_tags(report, names)) if tag_categories(report) else None,
            "entities": _image(plot_entities(report, names)) if has_entities(report) else None,
            "reliability": _image(plot_reliability(report, names)) if has_confidence(report) else None,
            "confusions": [_image(plot_confusions(model)) if _has_tags(model) else None for model in report.models],
        }
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string(Path(__file__).with_name("page.html.jinja").read_text(encoding="utf-8"))
    return template.render(
        report=report,
        conventions=report.to_dict()["conventions"],
        duration=duration(report.audio_seconds),
        names=names,
        titles={"cer": "CER", "wer": "WER", "wer_tagged": "WER with tags"},
        overview=overview(report),
        tag_table=tag_table(report),
        plots=plots,
        worst=[worst(model) for model in report.models],
    )


def worst(model: ModelResult) -> list[dict[str, Any]]:
    """Return the recordings with the highest character error rates, and their edits."""
    ranked = sorted(model.utterances, key=lambda utterance: -_cer(utterance))
    return [
        {
            "audio": str(AudioSegment(*(utterance[key] for key in ("audio", "offset", "duration", "channel")))),
            "cer": f"{100 * _cer(utterance):.0f} %",
            "edits": align(*(normalize(utterance[side]["transcript"]) for side in ("reference", "hypothesis"))),
        }
        for utterance in ranked[:WORST]
        if _cer(utterance) > 0
    ]


def plot_errors(report: Report, names: Sequence[str]) -> Figure:
    """Plot error rates of each model: bars of substitutions, deletions and insertions, and the interval of the sum."""
    kinds = {"cer": "CER", **word_rates(report)}
    figure = Figure(figsize=(9, 1.3 + 0.45 * len(names)), layout="constrained")
    axes = figure.subplots(1, len(kinds), sharey=True)
    for axis, (key, title) in zip(axes, kinds.items(), strict=True):
        results = [getattr(model, key) for model in report.models]
        left = np.zeros(len(results))
        for kind, colour in EDIT_COLOURS.items():
            widths = np.array([100 * getattr(r.edits, kind) / max(r.edits.length, 1) for r in results])
            axis.barh(names, widths, left=left, color=colour, label=kind, height=0.6)
            left += widths
        _whiskers(axis, [result.rate for result in results], range(len(results)), horizontal=True)
        axis.set(title=title, xlabel="per cent of the reference")
        axis.margins(x=0.08)
        axis.set_xlim(left=0)
    axes[0].invert_yaxis()
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=3, frameon=False)
    return figure


def plot_spread(report: Report, names: Sequence[str]) -> Figure:
    """Plot for each model the share of recordings with a CER of at most x."""
    figure = Figure(figsize=(9, 3.2), layout="constrained")
    axis = figure.subplots()
    for index, (model, name) in enumerate(zip(report.models, names, strict=True)):
        rates = [100 * min(_cer(utterance), 2) for utterance in model.utterances]
        axis.ecdf(rates, label=name, color=_colour(index), linewidth=2)
    axis.set(xlabel="CER of a recording, per cent (above 200 shown as 200)", ylabel="share of recordings")
    axis.set_xlim(left=0)
    axis.grid(alpha=0.3)
    axis.legend(frameon=False)
    return figure


def plot_reliability(report: Report, names: Sequence[str]) -> Figure:
    """Plot the fraction of correct characters over their confidence, and below it the share of the characters."""
    figure = Figure(figsize=(5.5, 5), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    upper.plot([0, 1], [0, 1], color="#999999", linestyle="--", label="perfect calibration")
    for index, (model, name) in enumerate(zip(report.models, names, strict=True)):
        if model.calibration is None:
            continue
        bins = model.calibration.bins
        places = [own.confidence for own in bins]
        label = f"{name} ({100 * model.calibration.error:.1f} %)"
        upper.plot(places, [own.right for own in bins], marker="o", color=_colour(index), label=label)
        shares = [own.count / model.calibration.count for own in bins]
        lower.plot(places, shares, drawstyle="steps-mid", color=_colour(index))
    upper.set(ylabel="share of correct characters", xlim=(0, 1), ylim=(0, 1))
    lower.set(xlabel="confidence of a character", ylabel="share")
    lower.set_ylim(bottom=0)
    upper.legend(frameon=False, loc="upper left")
    return figure


def plot_tags(report: Report, names: Sequence[str]) -> Figure:
    """Plot the accuracy of each category for head, text and merged, next to that of the majority class."""
    categories = tag_categories(report)
    columns = min(len(categories), 3)
    rows = -(-len(categories) // columns)
    figure = Figure(figsize=(max(3 * columns, 5), 3.4 * rows), layout="constrained")
    axes = list(figure.subplots(rows, columns, squeeze=False, sharey=True).flat)
    width = 0.8 / len(names)
    for axis, category in zip(axes, categories, strict=False):
        for index, (model, name) in enumerate(zip(report.models, names, strict=True)):
            score = model.tags[category]
            rates = [score.accuracy[source] for source in SOURCES]
            places = np.arange(len(SOURCES)) + (index - (len(names) - 1) / 2) * width
            heights = [100 * ((rate and rate.value) or 0) for rate in rates]
            axis.bar(places, heights, width * 0.92, color=_colour(index), label=name)
            _whiskers(axis, rates, places, horizontal=False)
            for place, rate in zip(places, rates, strict=True):
                if rate is None:
                    axis.text(place, 2, "no tags", rotation=90, ha="center", va="bottom", color="#777777", size=8)
        axis.axhline(100 * score.majority_accuracy, color="#444444", linestyle="--", label="majority class")
        axis.set(title=f"{category} ({score.count})", ylim=(0, 105), xticks=range(len(SOURCES)), xticklabels=SOURCES)
    for axis in axes[len(categories) :]:
        axis.set_axis_off()
    figure.axes[0].set_ylabel("accuracy, per cent")
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=4, frameon=False)
    return figure


def plot_confusions(model: ModelResult) -> Figure:
    """Plot confusion matrices of one model, one row each for head and merged, one column per category."""
    sources = [source for source in ("head", "merged") if any(source in s.confusion for s in model.tags.values())]
    rows, columns = len(sources), len(model.tags)
    figure = Figure(figsize=(max(3.6 * columns, 5), 3.4 * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False)
    for column, (category, score) in enumerate(model.tags.items()):
        for row, source in enumerate(sources):
            if source in score.confusion:
                _draw_confusion(axes[row, column], score.confusion[source], score.labels, category)
                axes[row, column].set(title=f"{category}, {source}", xlabel="predicted", ylabel="true")
            else:
                axes[row, column].set_axis_off()
                axes[row, column].text(0.5, 0.5, f"{category}, {source}: no tags", ha="center")
    return figure


def _draw_confusion(axis: Any, counts: list[list[int]], labels: list[str], category: str) -> None:
    matrix = np.array(counts)
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    axis.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    short = [label.removeprefix(f"{category}_") for label in labels]
    axis.set(xticks=range(len(short)), yticks=range(len(short)))
    axis.set_xticklabels(short, rotation=40, ha="right", rotation_mode="anchor")
    axis.set_yticklabels(short)
    axis.spines[:].set_visible(False)
    for (row, column), count in np.ndenumerate(matrix):
        colour = "white" if shares[row, column] > 0.5 else "black"
        axis.text(column, row, count, ha="center", va="center", color=colour)


def plot_entities(report: Report, names: Sequence[str]) -> Figure:
    """Plot entity F1 of each model: over all types, and for the most frequent types of the manifest."""
    scores = [model.entities for model in report.models if model.entities]
    wanted = {name: counts["reference"] for score in scores for name, counts in score.types.items()}
    types = sorted(wanted, key=lambda name: (-wanted[name], name))[:MAX_TYPES]
    figure = Figure(figsize=(9, 1.2 + 0.25 * (len(types) + 1) * max(len(names), 2)), layout="constrained")
    axis = figure.subplots()
    height = 0.8 / len(names)
    for index, (score, name) in enumerate(zip(scores, names, strict=True)):
        places = np.arange(len(types) + 1) + (index - (len(names) - 1) / 2) * height
        values = [score.f1.value or 0, *(score.types.get(kind, {"f1": 0})["f1"] for kind in types)]
        axis.barh(places, [100 * value for value in values], height * 0.92, color=_colour(index), label=name)
        _whiskers(axis, [score.f1], places[:1], horizontal=True)
    labels = [f"all ({scores[0].counts.reference})", *(f"{kind} ({wanted[kind]})" for kind in types)]
    axis.set(yticks=range(len(labels)), yticklabels=labels, xlabel="F1, per cent", xlim=(0, 105))
    axis.invert_yaxis()
    figure.legend(loc="outside upper center", ncols=4, frameon=False)
    return figure


def _whiskers(axis: Any, rates: Sequence[Rate | None], places: Iterable[float], horizontal: bool) -> None:
    """Draw the intervals of rates, in per cent."""
    for place, rate in zip(places, rates, strict=True):
        if rate is None or rate.value is None or rate.low is None or rate.high is None:
            continue
        ends, middle = [100 * rate.low, 100 * rate.high], [place, place]
        axis.plot(*((ends, middle) if horizontal else (middle, ends)), color="black", linewidth=1.3)


def _image(figure: Figure) -> str:
    content = io.BytesIO()
    figure.savefig(content, format="svg", metadata={"Date": None})
    return f"data:image/svg+xml;base64,{base64.b64encode(content.getvalue()).decode()}"


def _colour(index: int) -> str:
    return COLOURS[index % len(COLOURS)]


def _cer(utterance: dict[str, Any]) -> float:
    """CER of one recording; an empty reference counts as one character."""
    edits = Edits(**utterance["cer"])
    return edits.errors / max(edits.length, 1)


def _has_tags(model: ModelResult) -> bool:
    return any(score.confusion for score in model.tags.values())


def _short_names(report: Report) -> list[str]:
    """Return short names for the plots: the last parts of the models' paths if all differ, otherwise the paths."""
    whole = [model.model for model in report.models]
    short = [Path(name).name or name for name in whole]
    return short if len(set(short)) == len(short) else whole

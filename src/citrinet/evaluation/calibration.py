"""Calibration of confidence: expected calibration error, reliability, and the temperature."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..error_rates import align, normalize
from ..result_citrinet import RecognitionResult, calibrated

BINS = 15  # of equal width, as in Guo et al., "On Calibration of Modern Neural Networks" (2017)


@dataclass(frozen=True)
class Bin:
    """Characters of similar confidence: their number, their mean confidence, and the fraction that is correct."""

    count: int
    confidence: float
    right: float


@dataclass(frozen=True)
class Calibration:
    """
    Calibration of the confidence of characters.

    Args:
        count: number of characters that the model wrote.
        error: expected calibration error, the mean over the characters of `|confidence - right|` of their bin.
        temperature: best temperature to divide the log-odds of the confidence by.
        error_at_temperature: `error` with that temperature.
        bins: the bins that have characters.
    """

    count: int
    error: float
    temperature: float
    error_at_temperature: float
    bins: list[Bin]


def calibration(outputs: Sequence[RecognitionResult], references: Sequence[str]) -> Calibration | None:
    """
    Compare the confidence of characters with whether they are correct.

    A character is correct if it matches the reference in the alignment with fewest edits.

    Args:
        outputs: results with characters in `chunks`.
        references: the reference transcripts.

    Returns:
        [`Calibration`]; `None` if no character has a confidence.
    """
    judged = [_judge(*pair) for pair in zip(outputs, references, strict=True)]
    confidences, right = (np.array([pair[side] for pairs in judged for pair in pairs]) for side in (0, 1))
    if not len(right):
        return None
    temperature = fit_temperature(confidences, right)
    bins = reliability(confidences, right)
    after = reliability(calibrated(confidences, temperature), right)
    return Calibration(len(right), _error(bins), temperature, _error(after), bins)


def reliability(confidences: np.ndarray, right: np.ndarray) -> list[Bin]:
    """Group (n,) confidences, and whether each is right, into bins; empty bins are left out."""
    places = np.minimum((confidences * BINS).astype(int), BINS - 1)
    members = [np.flatnonzero(places == index) for index in range(BINS)]
    return [Bin(len(own), float(confidences[own].mean()), float(right[own].mean())) for own in members if len(own)]


def fit_temperature(confidences: np.ndarray, right: np.ndarray) -> float:
    """
    Find the temperature of the log-odds with the least negative log-likelihood, from 0.2 to 5 in steps of 1 %.

    Args:
        confidences: (n,) confidences from 0 to 1.
        right: (n,) whether each is correct.
    """
    clipped = np.clip(confidences, 1e-4, 1 - 1e-4)  # results are rounded to four digits
    temperatures = np.geomspace(0.2, 5, 324)
    said = (np.clip(calibrated(clipped, temperature), 1e-12, 1 - 1e-12) for temperature in temperatures)
    losses = [-np.log(np.where(right, p, 1 - p)).mean() for p in said]
    return round(float(temperatures[int(np.argmin(losses))]), 3)


def write_temperature(model: str, factor: float) -> float:
    """
    Multiply the temperature in the `config.json` of a model's folder.

    Args:
        model: folder of a model or of ONNX graphs.
        factor: factor to multiply the temperature by.

    Returns:
        The resulting temperature.

    Raises:
        ValueError: if there is no `config.json`, for example because the model is not a folder.
    """
    path = Path(model) / "config.json"
    if not path.is_file():
        raise ValueError(f"{model} is no folder with a config.json: download the model, then calibrate the folder.")
    config = json.loads(path.read_text(encoding="utf-8"))
    temperature = round(float(config.get("confidence_temperature", 1.0)) * factor, 3)
    config["confidence_temperature"] = temperature
    scratch = path.with_name(f".{path.name}.new")
    scratch.write_text(json.dumps(config, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
    scratch.replace(path)
    return temperature


def _judge(output: RecognitionResult, reference: str) -> list[tuple[float, bool]]:
    """Return the confidence of each normalised character of an output, and whether it is correct."""
    written = [(char, chunk["confidence"]) for chunk in output.get("chunks", []) for char in normalize(chunk["text"])]
    is_right: list[bool] = []
    for kind, text in align(normalize(reference), "".join(char for char, _ in written)):
        if kind != "delete":
            is_right += [kind == "equal"] * len(text)
    return [(confidence, right) for (_, confidence), right in zip(written, is_right, strict=True)]


def _error(bins: Sequence[Bin]) -> float:
    total = sum(own.count for own in bins)
    return sum(own.count * abs(own.confidence - own.right) for own in bins) / total


__all__ = ["Bin", "Calibration", "calibration", "fit_temperature", "reliability", "write_temperature"]

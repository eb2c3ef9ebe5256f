"""The folder that `citrinet export onnx` writes: its file names, and a reader for its JSON files."""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FRONT_END, NETWORK, TAG_HEADS = "frontend.onnx", "model.onnx", "tag_classifier.onnx"
CONFIG, VOCABULARY, TAG_LABELS = "config.json", "vocabulary.json", "tag_classifier.json"
_REMEDY = "export the model again, `citrinet export onnx`"


def is_onnx_folder(path: str | Path) -> bool:
    """Whether a path is a folder of exported ONNX graphs, even incomplete, and not a model with PyTorch weights."""
    folder = Path(path)
    is_exported = any((folder / name).is_file() for name in (FRONT_END, NETWORK, VOCABULARY))
    return is_exported and not any(file.suffix in (".safetensors", ".bin") for file in folder.iterdir())


@dataclass(frozen=True)
class OnnxDescription:
    """
    Description of exported graphs.

    Args:
        sampling_rate: sampling rate of the waveforms in Hz.
        hop_length: number of samples between feature frames.
        pad_to: the number of frames of a batch is a multiple of this.
        subsampling_factor: number of feature frames per frame of logits.
        pieces: the tokens, without the blank.
        blank_id: id of the blank.
        unknown_id: id of the unknown token, if there is one.
        leading_boundaries: treatment of word boundaries at the start of a text, see [`CitrinetTokenizer`].
        tag_labels: category -> labels in the order of the head's outputs.
        confidence_temperature: see [`CitrinetConfig`].
    """

    sampling_rate: int
    hop_length: int
    pad_to: int
    subsampling_factor: int
    pieces: list[str]
    blank_id: int
    unknown_id: int | None
    leading_boundaries: str
    tag_labels: dict[str, list[str]]
    confidence_temperature: float


def read_description(folder: Path) -> OnnxDescription:
    """
    Read the description of an export.

    Raises:
        OSError: if files of the export are missing.
        ValueError: if one of them is damaged.
    """
    missing = [name for name in (FRONT_END, NETWORK, CONFIG, VOCABULARY) if not (folder / name).is_file()]
    # If one of the two were missing, results would silently have no tags.
    heads = [(folder / name).is_file() for name in (TAG_HEADS, TAG_LABELS)]
    missing += [name for name, is_there in zip((TAG_HEADS, TAG_LABELS), heads, strict=True) if any(heads) > is_there]
    if missing:
        raise FileNotFoundError(f"{folder} is no whole ONNX export, it has no {', '.join(missing)}: {_REMEDY}.")
    config, vocabulary = _Json(folder / CONFIG), _Json(folder / VOCABULARY)
    pieces = vocabulary.strings("vocabulary")
    return OnnxDescription(
        sampling_rate=config.whole("preprocessor", "sample_rate"),
        hop_length=config.whole("preprocessor", "hop_length"),
        pad_to=max(config.whole("preprocessor", "pad_to", low=0), 1),
        subsampling_factor=config.whole("subsampling_factor"),
        pieces=pieces,
        blank_id=vocabulary.whole("blank_id", low=0),
        unknown_id=None if vocabulary.find("unknown_id") is None else vocabulary.whole("unknown_id", low=0),
        leading_boundaries=vocabulary.text("leading_boundaries"),
        tag_labels=_tag_labels(_Json(folder / TAG_LABELS)) if any(heads) else {},
        confidence_temperature=config.positive("confidence_temperature", default=1.0),
    )


def _tag_labels(content: "_Json") -> dict[str, list[str]]:
    return {category: content.strings("categories", category, "labels") for category in content.mapping("categories")}


class _Json:
    """A JSON file with checked access to its values by their keys."""

    def __init__(self, path: Path):
        self._path = path
        try:
            self._content = json.loads(path.read_text(encoding="utf-8"))
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{path} is damaged: {_REMEDY} ({error}).") from error

    def whole(self, *keys: str, low: int = 1) -> int:
        value = self.find(*keys)
        if not isinstance(value, int) or isinstance(value, bool) or value < low:
            self._refuse(keys, f"a whole number from {low}")
        return int(value)

    def positive(self, *keys: str, default: float) -> float:
        value = self.find(*keys)
        if value is None:  # exports may lack it
            return default
        if not isinstance(value, (int, float)) or isinstance(value, bool) or not 0 < value < math.inf:
            self._refuse(keys, "a number above 0")
        return float(value)

    def text(self, *keys: str) -> str:
        value = self.find(*keys)
        if not isinstance(value, str):
            self._refuse(keys, "a string")
        return str(value)

    def strings(self, *keys: str) -> list[str]:
        value = self.find(*keys)
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            self._refuse(keys, "a list of strings")
        return list(value)

    def mapping(self, *keys: str) -> dict[str, Any]:
        value = self.find(*keys)
        if not isinstance(value, dict):
            self._refuse(keys, "a mapping")
        return dict(value)

    def find(self, *keys: str) -> Any:
        """Return the value, or `None` if there is none."""
        value = self._content
        for key in keys:
            value = value.get(key) if isinstance(value, dict) else None
        return value

    def _refuse(self, keys: tuple[str, ...], expected: str) -> None:
        raise ValueError(f"{self._path} is damaged, `{'.'.join(keys)}` is not {expected}: {_REMEDY}.")


__all__ = [
    "CONFIG",
    "FRONT_END",
    "NETWORK",
    "TAG_HEADS",
    "TAG_LABELS",
    "VOCABULARY",
    "OnnxDescription",
    "is_onnx_folder",
    "read_description",
]

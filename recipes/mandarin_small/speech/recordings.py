"""Held-out speech as recordings and NeMo manifests, for `citrinet evaluate`."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyworld
import soundfile
from numpy.typing import NDArray
from tqdm.auto import tqdm

from ..utterance import Utterance
from .sound import RATE
from .store import SpeechStore


def write_recordings(utterances: Sequence[Utterance], speech: SpeechStore, folder: Path) -> None:
    """
    Write `SET.jsonl`, a manifest for each set, and `SET/ID.flac`; existing recordings are kept.

    Args:
        utterances: held-out utterances; those that were not spoken are skipped.
        speech: the speech.
        folder: output folder, created if needed.
    """
    manifests: dict[str, list[str]] = {}
    spoken = [utterance for utterance in utterances if utterance.id in speech]
    for utterance in tqdm(spoken, desc="recordings", unit="utterance", disable=not spoken):
        group = (utterance.set or "heldout").split("/")[0]
        path = folder / group / f"{utterance.id}.flac"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            samples = like_a_child(speech[utterance.id], utterance.child)
            unfinished = path.with_suffix(".part")
            soundfile.write(unfinished, samples, RATE, format="FLAC")
            unfinished.replace(path)
        entry = {
            "audio_filepath": f"{group}/{path.name}",
            "duration": soundfile.info(path).duration,
            "text": utterance.text,
            "age": utterance.age,
            "gender": utterance.gender,
            "dialect": utterance.dialect,
        }
        known = {key: value for key, value in entry.items() if value is not None}
        manifests.setdefault(group, []).append(json.dumps(known, ensure_ascii=False) + "\n")
    for group, lines in manifests.items():
        unfinished = folder / f".{group}.part"
        unfinished.write_text("".join(lines), encoding="utf-8")
        unfinished.replace(folder / f"{group}.jsonl")


def like_a_child(samples: NDArray[np.int16], factor: float) -> NDArray[np.int16]:
    """
    Raise the pitch by a factor and the formants by half as much, with the WORLD vocoder (Morise et al. 2016).

    Args:
        samples: samples at 16 kHz.
        factor: pitch factor; 1 changes nothing.
    """
    if factor == 1:
        return samples
    pitch, envelope, aperiodicity = pyworld.wav2world(samples / 32768, RATE)
    bins = np.arange(envelope.shape[1])
    source = np.minimum(bins / (1 + (factor - 1) / 2), bins[-1])
    stretched = np.exp([np.interp(source, bins, frame) for frame in np.log(envelope)])
    child = pyworld.synthesize(pitch * factor, stretched, aperiodicity, RATE)[: len(samples)]
    rounded: NDArray[np.int16] = np.rint(32767 * child / max(1.0, np.abs(child).max())).astype(np.int16)
    return rounded

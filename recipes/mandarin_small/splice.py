"""
Make new utterances of pieces of recorded ones: sentences that nobody said, in the voices and rooms of those who spoke.

    python splice.py MODEL OUTPUT COUNT MANIFEST...

A network that hears few sentences learns them by heart. Here characters are found in the recordings by forced alignment
with a model that was trained on them, and runs of two to five characters of one speaker are joined at random: the
sounds stay real, the context is new. Source: on-the-fly aligned data augmentation (arXiv:2104.01393).
"""

import json
import random
import sys
from collections import defaultdict
from itertools import pairwise
from pathlib import Path

import numpy as np
import soundfile
import torch
from torchaudio.functional import forced_align, merge_tokens
from tqdm.auto import tqdm
from transformers import AutoModelForCTC, AutoProcessor

from citrinet import load_audio
from sentences import HAN, Sentence

RATE = 16_000
FADE = 160  # samples over which two pieces blend


def main(model_name: str, output: Path, count: int, manifests: list[Path]) -> None:
    """Write `count` utterances and their manifest."""
    model, processor = AutoModelForCTC.from_pretrained(model_name).eval(), AutoProcessor.from_pretrained(model_name)
    recordings = defaultdict(list)
    lines = [(path, json.loads(line)) for path in manifests for line in path.read_text(encoding="utf-8").splitlines()]
    for path, entry in tqdm(lines, unit="recording", disable=None):
        text = Sentence(entry["text"], "read").spoken
        samples = load_audio(path.parent / entry["audio_filepath"])
        if HAN.fullmatch(text) and (cuts := find_cuts(model, processor, samples, text)) is not None:
            recordings[entry["speaker"]].append((samples, text, cuts))
    rng = random.Random(0)
    (output / "audio").mkdir(parents=True, exist_ok=True)
    speakers = sorted(speaker for speaker, items in recordings.items() if len(items) >= 5)
    weights = [len(recordings[speaker]) for speaker in speakers]
    with (output / "train.jsonl").open("w", encoding="utf-8") as file:
        for index, speaker in enumerate(rng.choices(speakers, weights, k=count)):
            samples, text = splice(recordings[speaker], rng)
            name = f"audio/{index:05d}.flac"
            soundfile.write(output / name, samples, RATE)
            entry = {"audio_filepath": name, "duration": round(len(samples) / RATE, 3), "text": text}
            file.write(json.dumps({**entry, "speaker": speaker}, ensure_ascii=False) + "\n")


@torch.no_grad()
def find_cuts(model, processor, samples: np.ndarray, text: str) -> list[int] | None:
    """Samples at which each character starts, and where the last one ends; none if the text cannot be aligned."""
    ids = processor.tokenizer(text, add_special_tokens=False)["input_ids"]
    inputs = processor(samples, sampling_rate=RATE)
    log_probs = model(**inputs).logits[:, : len(samples) // model.config.inputs_to_logits_ratio].log_softmax(-1)
    if len(ids) != len(text) or log_probs.shape[1] < 2 * len(ids):
        return None
    path, scores = forced_align(log_probs, torch.tensor([ids]), blank=model.config.pad_token_id)
    spans = merge_tokens(path[0], scores[0], blank=model.config.pad_token_id)
    ratio = model.config.inputs_to_logits_ratio
    borders = [(left.end + right.start) / 2 * ratio for left, right in pairwise(spans)]
    first, last = spans[0].start * ratio - 1600, spans[-1].end * ratio + 1600
    quiet = [_quietest(samples, round(border)) for border in borders]
    return [max(0, first), *quiet, min(len(samples), last)]


def _quietest(samples: np.ndarray, place: int, reach: int = 800, window: int = 160) -> int:
    """The place with the least energy within 50 ms."""
    start = max(0, place - reach)
    energy = np.convolve(np.square(samples[start : place + reach]), np.ones(window), "valid")
    return start + int(energy.argmin()) + window // 2 if len(energy) else place


def splice(recordings: list, rng: random.Random) -> tuple[np.ndarray, str]:
    """Three to five runs of characters from different recordings of one speaker."""
    joined, text = np.zeros(0, np.float32), ""
    for samples, spoken, cuts in rng.sample(recordings, rng.randint(3, 5)):
        length = min(rng.randint(2, 5), len(spoken))
        start = rng.randint(0, len(spoken) - length)
        piece = samples[cuts[start] : cuts[start + length]].astype(np.float32)
        fade = min(FADE, len(joined), len(piece))
        ramp = np.linspace(0, 1, fade, dtype=np.float32)
        blend = joined[len(joined) - fade :] * (1 - ramp) + piece[:fade] * ramp
        joined = np.concatenate([joined[: len(joined) - fade], blend, piece[fade:]])
        text += spoken[start : start + length]
    return joined, text


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), [Path(name) for name in sys.argv[4:]])

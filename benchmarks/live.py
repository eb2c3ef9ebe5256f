"""
Measure live transcription: whether its text equals the offline text, its cost and its delay.

    python benchmarks/live.py --model DIR MANIFEST.jsonl

Each recording of the manifest, followed by a second of silence, is fed to its own `CitrinetStream` in pieces of 0.1 s.
The text is compared with that of the same segments offline, and with that of the whole recording. Delays are medians
over all characters, in seconds of audio from the end of a character to the piece after which the text is long enough to
contain it (seen), the text up to it no longer changes (right), and that text is stable (stable). Computing time is not
included. `load` is the seconds of audio that the network processes per second of audio, `cost` the CPU seconds.
"""

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from citrinet import CitrinetStream, Recognizer, default_model, load_audio, load_recognizer
from citrinet.manifest import read_manifest
from citrinet.voice_activity_citrinet import speech_segments

RATE, PIECE = 16_000, 1_600
SETTINGS: dict[str, dict[str, Any]] = {
    "step 0.2 s, load 20": {"step_s": 0.2, "max_load": 20.0},
    "step 0.5 s, load 10 (default)": {},
    "step 1 s, load 3": {"step_s": 1.0, "max_load": 3.0},
}


def main() -> None:
    """Read the manifest, print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("manifest", type=Path)
    parser.add_argument("--model", default=default_model())
    options = parser.parse_args()
    recognizer = load_recognizer(options.model)
    silence = np.zeros(RATE, np.float32)
    clips = [np.concatenate([load_audio(entry.segment), silence]) for entry in read_manifest(options.manifest)]
    offline = ["".join(recognizer(clip[a:b])["transcript"] for a, b in speech_segments(clip, RATE)) for clip in clips]
    whole = [recognizer(clip[: -len(silence)])["transcript"] for clip in clips]
    print("| setting | as segments offline | as the whole | load | cost | seen | right | stable |")
    print("|---|---|---|---|---|---|---|---|")
    for name, setting in SETTINGS.items():
        counted = Counted(recognizer)
        seconds, texts = 0.0, []
        delays: dict[str, list[float]] = {"seen": [], "right": [], "stable": []}
        for clip in tqdm(clips, unit="file", disable=None, leave=False):
            stream = CitrinetStream(counted, return_timestamps="char", **setting)
            shown, start = [], time.process_time()
            for index in range(0, len(clip), PIECE):
                shown.append(stream.feed(clip[index : index + PIECE], RATE))
            texts.append(stream.finish().stable)
            seconds += time.process_time() - start
            ends = [chunk["timestamp"][1] for result in stream.segments for chunk in result["chunks"]]
            sights = ["".join(text) for text in shown]
            delays["seen"] += since(ends, texts[-1], [texts[-1][: len(sight)] for sight in sights])
            delays["right"] += since(ends, texts[-1], sights)
            delays["stable"] += since(ends, texts[-1], [text.stable for text in shown])
        total = sum(map(len, clips)) / RATE
        same = [f"{np.mean([a == b for a, b in zip(texts, others, strict=True)]):.1%}" for others in (offline, whole)]
        cost = f"{counted.samples / RATE / total:.1f} | {seconds / total:.3f}"
        late = " | ".join(f"{np.median(values):.2f} s" for values in delays.values())
        print(f"| {name} | {' | '.join(same)} | {cost} | {late} |", flush=True)


class Counted:
    """Recogniser that counts its input samples."""

    def __init__(self, recognizer: Recognizer):
        self.recognizer, self.sampling_rate, self.samples = recognizer, recognizer.sampling_rate, 0

    def stream(self, waveforms: list[np.ndarray], **options: Any) -> Any:
        """Transcribe waveforms."""
        self.samples += sum(map(len, waveforms))
        return self.recognizer.stream(iter(waveforms), **options)


def since(ends: list[float], text: str, shown: list[str]) -> list[float]:
    """Seconds of audio from the end of each character to the piece from which on the text up to it is shown."""
    last_wrong = np.full(len(text), -1)
    for piece, sight in enumerate(shown):
        agreed = next((i for i, (a, b) in enumerate(zip(sight, text, strict=False)) if a != b), len(sight))
        last_wrong[agreed:] = piece
    letters = [index for index, char in enumerate(text) if not char.isspace()]
    return [(last_wrong[index] + 2) * PIECE / RATE - end for end, index in zip(ends, letters, strict=True)]


if __name__ == "__main__":
    main()

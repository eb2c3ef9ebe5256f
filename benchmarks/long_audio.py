"""
Measure the accuracy on long audio: split at pauses, in windows, in one pass, and each sentence separately.

    python benchmarks/long_audio.py --model DIR MANIFEST.jsonl [--hour]

The recordings of the manifest, in random order, are joined in several ways: as they are; with the silence at their ends
replaced by pauses of some length; with added noise, 20 dB below the speech; without any pause. Figures are character
error rates in percent, as in `citrinet evaluate`. With `--hour`, the memory for a tenth of an hour and for an hour is
measured instead.
"""

import argparse
import resource
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from tqdm.auto import tqdm

from citrinet import Recognizer, default_model, load_audio, load_recognizer
from citrinet.error_rates import Edits, character_edits
from citrinet.manifest import read_manifest

RATE = 16_000
JOINS = {  # seconds of pauses (`None`: as recorded), noise in dB below the speech
    "as they are": (None, None),
    "pauses of 0.2 to 0.5 s": ((0.2, 0.5), None),
    "pauses of 0.5 to 1.5 s": ((0.5, 1.5), None),
    "pauses of 0.2 to 1 s, noise": ((0.2, 1.0), 20.0),
    "no pauses": ((0.0, 0.0), None),
}
WAYS = {"at pauses": {"vad": True}, "windows": {"chunk_length_s": 30.0}, "one pass": {"chunk_length_s": 0.0}}


def main() -> None:
    """Read the manifest, print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("manifest", type=Path)
    parser.add_argument("--model", default=default_model())
    parser.add_argument("--hour", action="store_true", help="measure memory")
    options = parser.parse_args()
    recognizer = load_recognizer(options.model)
    rng = np.random.default_rng(0)
    entries = list(read_manifest(options.manifest))
    entries = [entries[index] for index in rng.permutation(len(entries))]
    texts = [entry.text for entry in entries]
    clips = [load_audio(entry.segment) for entry in tqdm(entries, unit="file", disable=None)]
    if options.hour:
        memory(recognizer, np.concatenate(clips))
        return
    print(f"| joined | s | alone | {' | '.join(WAYS)} |\n|---|---|---|{'---|' * len(WAYS)}")
    for name, (pauses, noise) in JOINS.items():
        parts = list(joined(clips, pauses, noise, rng))
        sentences = [sentence for sentence, _ in parts]
        audio = np.concatenate([part for pair in parts for part in pair])
        alone = recognizer.stream(iter(sentences), vad=False)
        rates = [rate([character_edits(text, heard["transcript"]) for text, heard in zip(texts, alone, strict=True)])]
        for way in WAYS.values():
            heard = recognizer(audio.copy(), **way)["transcript"]
            rates.append(rate([character_edits("".join(texts), heard)]))
        print(f"| {name} | {len(audio) / RATE:.0f} | {' | '.join(rates)} |", flush=True)


def joined(
    clips: list[np.ndarray], pauses: tuple[float, float] | None, noise: float | None, rng: np.random.Generator
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield each sentence and the pause after it."""
    loudness = np.median([np.sqrt(np.mean(clip**2)) for clip in clips])
    level = 0.0 if noise is None else loudness * 10 ** (-noise / 20)
    for clip in clips:
        sentence = clip if pauses is None else trimmed(clip)
        pause = np.zeros(0 if pauses is None else int(rng.uniform(*pauses) * RATE), np.float32)
        yield tuple(part + level * rng.standard_normal(len(part)).astype(np.float32) for part in (sentence, pause))


def trimmed(clip: np.ndarray) -> np.ndarray:
    """Trim the ends that are 35 dB below the loudest 10 ms of a recording, except for 50 ms."""
    hop = RATE // 100
    frames = clip[: len(clip) // hop * hop].reshape(-1, hop)
    loud = np.flatnonzero((frames**2).mean(axis=1) > (frames**2).mean(axis=1).max() * 10**-3.5) * hop
    return clip[max(loud[0] - 5 * hop, 0) : loud[-1] + 6 * hop]


def rate(edits: list[Edits]) -> str:
    """Format the error rate of all texts in percent."""
    return f"{100 * sum(edit.errors for edit in edits) / sum(edit.length for edit in edits):.2f}"


def memory(recognizer: Recognizer, audio: np.ndarray) -> None:
    """Print the peak memory of the process before and after recordings of two lengths."""
    print("| s | samples, MB | peak before, MB | peak after, MB |\n|---|---|---|---|")
    for seconds in (360, 3600):
        recording = np.resize(audio, seconds * RATE)
        before = peak()
        recognizer(recording)
        print(f"| {seconds} | {recording.nbytes / 1e6:.0f} | {before:.0f} | {peak():.0f} |", flush=True)


def peak() -> float:
    """Peak memory of this process in MB (Linux counts in kB)."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


if __name__ == "__main__":
    main()

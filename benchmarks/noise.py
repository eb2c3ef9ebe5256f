"""
Compare a model's confidence on noise and music with that on speech, the basis of `citrinet.is_speech`.

    python benchmarks/noise.py MANIFEST.jsonl [--model DIR]

Printed are, for each kind of sound, the number of recordings that `is_speech` accepts, and their confidences.
"""

import argparse
from collections.abc import Callable

import numpy as np
from tqdm.auto import tqdm

import citrinet
from citrinet.manifest import read_manifest

RATE = 16_000
COUNT = 24  # recordings of each kind


def coloured(rng: np.random.Generator, samples: int, slope: float) -> np.ndarray:
    """Noise whose power falls as frequency to the power of `slope`: 0 is white, 1 pink, 2 brown."""
    frequencies = np.fft.rfftfreq(samples)
    frequencies[0] = frequencies[1]
    spectrum = np.fft.rfft(rng.standard_normal(samples)) * frequencies ** (-slope / 2)
    return np.fft.irfft(spectrum, samples)


def swelling(rng: np.random.Generator, samples: int) -> np.ndarray:
    """Pink noise whose loudness varies at the rate of syllables."""
    return coloured(rng, samples, 1) * np.abs(np.sin(np.pi * np.arange(samples) / RATE * rng.uniform(2, 6)))


def clicks(rng: np.random.Generator, samples: int) -> np.ndarray:
    """Thirty clicks at random times."""
    sound = np.zeros(samples)
    sound[rng.integers(0, samples, 30)] = 1
    return np.convolve(sound, rng.standard_normal(200) * np.exp(-np.arange(200) / 40), "same")


def music(rng: np.random.Generator, samples: int) -> np.ndarray:
    """A melody of notes with five harmonics that fade."""
    sound = np.zeros(samples)
    step = round(rng.uniform(0.15, 0.6) * RATE)
    time = np.arange(2 * step) / RATE
    for start in range(0, samples, step):
        pitch = 220 * 2 ** (rng.integers(0, 25) / 12)
        note = sum(np.sin(2 * np.pi * pitch * h * time) / h for h in range(1, 6)) * np.exp(-3 * time)
        sound[start : start + len(time)] += note[: samples - start]
    return sound


KINDS: dict[str, Callable[[np.random.Generator, int], np.ndarray]] = {
    "white noise": lambda rng, samples: coloured(rng, samples, 0),
    "pink noise": lambda rng, samples: coloured(rng, samples, 1),
    "brown noise": lambda rng, samples: coloured(rng, samples, 2),
    "swelling noise": swelling,
    "clicks": clicks,
    "music": music,
}


def main() -> None:
    """Print a line for each kind of sound, and one for the manifest."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("manifest", help="recordings of speech")
    parser.add_argument("--model", default=citrinet.default_model())
    options = parser.parse_args()
    recognizer = citrinet.load_recognizer(options.model)
    rng = np.random.default_rng(0)
    for kind, make in tqdm(KINDS.items(), disable=None):
        sounds = [make(rng, int(rng.uniform(2, 8) * RATE)) for _ in range(COUNT)]
        loud = [sound / np.abs(sound).max() * 10 ** rng.uniform(-2, -0.2) for sound in sounds]
        report(kind, recognizer, [sound.astype(np.float32) for sound in loud])
    waveforms = [recognizer.load(entry.segment) for entry in read_manifest(options.manifest)]
    report("the manifest", recognizer, waveforms)


def report(kind: str, recognizer: citrinet.Recognizer, waveforms: list[np.ndarray]) -> None:
    """Print the results for one kind of sound."""
    results = recognizer(waveforms)
    low, middle, high = np.percentile([result["confidence"] for result in results], [0, 50, 100])
    sure = sum(map(citrinet.is_speech, results))
    heard = sum(citrinet.is_speech(*pair) for pair in zip(results, waveforms, strict=True))
    confidence = f"{low:.2f} to {high:.2f}, median {middle:.2f}"
    print(f"{kind:15} {len(results):3}: {sure:3} by confidence alone, {heard:3} with voice activity; {confidence}")


if __name__ == "__main__":
    main()

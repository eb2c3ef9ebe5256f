"""
Measure how exactly texts are aligned, and how well words that were not said are found.

    PYTHONPATH=recipes python benchmarks/alignment.py --kokoro FOLDER --texts TEXTS.jsonl --speech MANIFEST.jsonl

Times: Kokoro speaks texts of the first manifest, and reports how long each phoneme takes (`--kokoro` is the folder that
`python -m mandarin_small.speech.fetch` fills). Printed are the errors of the starts and ends of characters.

Words: each recording of the second manifest is aligned with its text, with a word replaced by one from another text,
and with a word inserted; a word counts as not said if its confidence is below a threshold.

With `--minutes`, the recordings of the second manifest are joined, with pauses of 0.4 s, to one of that length. Printed
are time and memory of aligning it, and how many characters are placed outside their recording.
"""

import argparse
import itertools
import random
import resource
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jieba
import numpy as np
import soxr
import torch
from tqdm.auto import tqdm

import citrinet
from citrinet.alignment import NOT_SAID, align_waveform, aligner
from citrinet.manifest import read_manifest
from mandarin_small.speech.fetch import MODEL
from mandarin_small.speech.network import FRAME, RATE, Kokoro
from mandarin_small.speech.prompts import Prompts
from mandarin_small.speech.weights import read_weights
from mandarin_small.text.pronunciation import phonemes, read
from mandarin_small.utterance import Utterance

VOICES = ("zf_xiaoxiao", "zm_yunxi", "zf_xiaoni", "zm_yunjian")
SPEEDS = (0.85, 1.0, 1.15)
PAUSE = 6400  # samples between joined recordings
QUIET_DB, BLOCK = -42, 80  # level relative to the loudest block of 5 ms; the last phoneme's duration includes silence
Times = list[tuple[str, float, float]]  # character, start and end in seconds
Spoken = tuple[str, np.ndarray, Times]  # a text, its samples at 16 kHz, and the times of its characters


def main() -> None:
    """Speak, align, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=citrinet.default_model())
    parser.add_argument("--kokoro", type=Path)
    parser.add_argument("--texts", type=Path)
    parser.add_argument("--speech", type=Path)
    parser.add_argument("--count", type=int, default=60, help="number of texts to speak (default 60)")
    parser.add_argument("--minutes", type=float, help="join the speech to this length, and align it as a whole")
    options = parser.parse_args()
    recognizer = citrinet.load_recognizer(options.model)
    if options.kokoro:
        entries = read_manifest(options.texts)
        texts = [citrinet.parse_transcript(entry.text or "").transcript for entry in entries]
        spoken = list(speak(options.kokoro, texts[:: max(len(texts) // options.count, 1)][: options.count]))
        print_times(recognizer, spoken)
        print_gaps(recognizer, spoken)
    if options.speech and options.minutes:
        print_long(recognizer, options.speech, options.minutes)
    elif options.speech:
        print_words(recognizer, options.speech)


def speak(folder: Path, texts: list[str]) -> Iterator[Spoken]:
    """Speak texts."""
    prompts, network = Prompts(folder), Kokoro().eval()
    network.load_state_dict(read_weights(folder / MODEL))
    for number, text in enumerate(tqdm(texts, unit="text", disable=None)):
        words = read(text)
        symbols = phonemes(words) + "."
        voice = ((VOICES[number % len(VOICES)], 1.0),)
        columns = {"child": 1.0, "age": "NONE", "gender": None, "dialect": "", "source": ""}
        utterance = Utterance(number, text, symbols, voice, SPEEDS[number % len(SPEEDS)], **columns)
        prompt = prompts(utterance)
        assert prompt is not None
        tokens, style = torch.tensor([prompt[0]]), torch.from_numpy(prompt[1])[None]
        lengths = torch.tensor([tokens.shape[1]])
        with torch.inference_mode():
            said = network.encode(tokens, lengths, style, torch.tensor([utterance.speed]))
            durations = said.durations[0]
            spread = [part[0].repeat_interleave(durations, dim=0)[None] for part in (said.prosody, said.sound)]
            audio = network.speak(*spread, lengths=durations.sum()[None], styles=style)[0]
        ends = np.cumsum(durations.numpy()) * FRAME / RATE
        samples = soxr.resample(audio.numpy(), RATE, 16_000)
        times = character_times(words, symbols, np.minimum(ends, audible_until(samples)))
        yield "".join(character for character, *_ in times), samples, times


def character_times(words: list, symbols: str, ends: np.ndarray) -> Times:
    """Times of characters, from the ends of tokens: a boundary mark, a token for each symbol, another mark."""
    times, position = [], 0
    for word in words:
        for character, syllable in word:
            if not syllable:
                continue
            own = phonemes([[(character, syllable)]])
            position = symbols.index(own, position)
            times.append((character, float(ends[position]), float(ends[position + len(own)])))
            position += len(own)
    return times


def audible_until(samples: np.ndarray) -> float:
    """Seconds until the last block that is not silent."""
    blocks = samples[: len(samples) // BLOCK * BLOCK].reshape(-1, BLOCK)
    loudness = np.sqrt((blocks**2).mean(axis=1))
    return (np.flatnonzero(loudness > loudness.max() * 10 ** (QUIET_DB / 20))[-1] + 1) * BLOCK / 16_000


def print_times(recognizer: Any, spoken: list[Spoken]) -> None:
    """Print the errors of starts and ends."""
    errors: dict[str, list[float]] = {"start": [], "end": []}
    seconds = 0.0
    for text, samples, times in spoken:
        seconds += len(samples) / 16_000
        chunks = citrinet.align(recognizer, {"array": samples, "sampling_rate": 16_000}, text)["chunks"]
        for chunk, (character, *expected) in zip(chunks, times, strict=True):
            assert chunk["text"] == character
            for name, found, true in zip(errors, chunk["timestamp"], expected, strict=True):
                errors[name].append(1000 * (found - true))
    print(f"{len(errors['start'])} characters in {seconds:.0f} s of synthetic speech\n")
    print("| ms | median of the error | 95th percentile | median with its sign |\n|---|---|---|---|")
    for name, values in errors.items():
        sizes = np.abs(values)
        print(f"| {name} | {np.median(sizes):.0f} | {np.percentile(sizes, 95):.0f} | {np.median(values):+.0f} |")


def print_gaps(recognizer: Any, spoken: list[Spoken]) -> None:
    """Print how many characters are misplaced if the text lacks some of five sentences, with and without the limit."""
    print("\n| sentences that the text lacks | misplaced by 0.3 s | without a limit |\n|---|---|---|")
    limit = aligner._PASSED_OVER
    for lacking in ((), (2,), (1, 3), (0, 4)):
        rates = []
        for aligner._PASSED_OVER in (limit, -np.inf):
            rng, errors = random.Random(0), []
            for _ in range(60):
                parts = rng.sample(spoken, 5)
                starts = np.cumsum([0, *(len(samples) for _, samples, _ in parts)]) / 16_000
                kept = [index for index in range(5) if index not in lacking]
                expected = [starts[index] + start for index in kept for _, start, _ in parts[index][2]]
                audio = {"array": np.concatenate([samples for _, samples, _ in parts]), "sampling_rate": 16_000}
                alignment = citrinet.align(recognizer, audio, "\n".join(parts[index][0] for index in kept))
                found = [chunk["timestamp"][0] for chunk in alignment["chunks"]]
                errors += np.abs(np.subtract(found, expected)).tolist()
            rates.append(np.mean(np.array(errors) > 0.3))
        aligner._PASSED_OVER = limit
        print(f"| {', '.join(str(index + 1) for index in lacking) or 'none'} | {rates[0]:.2%} | {rates[1]:.2%} |")


def print_words(recognizer: Any, path: Path) -> None:
    """Print precision and recall of words that were not said."""
    entries = read_manifest(path)
    texts = [jieba.lcut(citrinet.parse_transcript(entry.text or "").transcript) for entry in entries]
    rng = random.Random(0)
    scores: dict[str, dict[bool, list[float]]] = {unit: {True: [], False: []} for unit in ("characters", "words")}
    for entry, words in zip(tqdm(entries, unit="file", disable=None), texts, strict=True):
        waveform = recognizer.load(entry.segment)
        for changed, marks in variants(rng, words, texts):
            try:
                chunks = align_waveform(recognizer, waveform, "".join(changed))["chunks"]
            except ValueError:  # too short for the inserted word
                continue
            for word, is_said in zip(changed, marks, strict=True):
                own = [chunks.pop(0)["confidence"] for _ in word]
                scores["characters"][is_said] += own
                scores["words"][is_said].append(float(np.exp(np.log(np.maximum(own, 1e-5)).mean())))
    for unit, found in scores.items():
        said, unsaid = (np.array(found[is_said]) for is_said in (True, False))
        print(f"\n{len(said)} {unit} that were said, {len(unsaid)} that were not\n")
        print("| threshold | recall | precision | said, but flagged |\n|---|---|---|---|")
        for threshold in (0.0003, NOT_SAID, 0.003, 0.01, 0.03):
            right, wrong = (unsaid < threshold).sum(), (said < threshold).sum()
            precision = right / max(right + wrong, 1)
            print(f"| {threshold:g} | {right / len(unsaid):.1%} | {precision:.1%} | {wrong / len(said):.1%} |")


def print_long(recognizer: Any, path: Path, minutes: float) -> None:
    """Align one long recording."""
    entries = itertools.cycle([(recognizer.load(one.segment), one.text or "") for one in read_manifest(path)])
    parts, texts, borders, length = [], [], [], 0
    while length < minutes * 60 * 16_000:
        samples, text = next(entries)
        borders.append((length / 16_000 - 0.1, (length + len(samples)) / 16_000 + 0.1))
        texts.append(citrinet.parse_transcript(text).transcript)
        parts += [samples, np.zeros(PAUSE, np.float32)]
        length += len(samples) + PAUSE
    audio = np.concatenate(parts)
    del parts
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    chunks = citrinet.align(recognizer, audio, "\n".join(texts))["chunks"]
    seconds, after = time.process_time() - start, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    places = [border for text, border in zip(texts, borders, strict=True) for char in text if not char.isspace()]
    outside = sum(
        not first <= chunk["timestamp"][0] <= last for chunk, (first, last) in zip(chunks, places, strict=True)
    )
    print(f"\n{length / 16_000:.0f} s, {len(texts)} recordings, {len(chunks)} characters, {outside} outside their own")
    print(f"{seconds:.0f} s of processor time; memory {before / 2**20:.2f} GB before, {after / 2**20:.2f} GB at most")


def variants(rng: random.Random, words: list[str], texts: list[list[str]]) -> Iterator[tuple[list[str], list[bool]]]:
    """Yield the words of a text unchanged, with one replaced and with one inserted; and whether each was said."""
    others = sorted({word for text in texts for word in text if len(word) > 1 and not set(word) & set("".join(words))})
    yield words, [True] * len(words)
    places = [index for index, word in enumerate(words) if any(len(other) == len(word) for other in others)]
    if places:
        place = rng.choice(places)
        other = rng.choice([other for other in others if len(other) == len(words[place])])
        yield [*words[:place], other, *words[place + 1 :]], [index != place for index in range(len(words))]
    place = rng.randint(0, len(words))
    yield [*words[:place], rng.choice(others), *words[place:]], [index != place for index in range(len(words) + 1)]


if __name__ == "__main__":
    main()

"""
How exactly texts are aligned, and how well words that were not said are found.

    PYTHONPATH=recipes python benchmarks/alignment.py --kokoro FOLDER --texts TEXTS.jsonl --speech MANIFEST.jsonl

Times: Kokoro speaks texts of the first manifest, and says how long each phoneme takes (`--kokoro` is the folder that
`python -m mandarin_small.speech.fetch` fills). The error is that of the starts and ends of characters. Words: of each
recording of the second manifest, what was said is aligned, and the same with a word replaced by another text's, or one
put in; a word is found not to be said if its confidence is below a threshold.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import soxr
import torch
from tqdm.auto import tqdm

import citrinet
from citrinet.manifest import read_manifest
from mandarin_small.speech.fetch import MODEL
from mandarin_small.speech.network import FRAME, RATE, Kokoro
from mandarin_small.speech.prompts import Prompts
from mandarin_small.speech.weights import read_weights
from mandarin_small.text.pronunciation import phonemes, read
from mandarin_small.utterance import Utterance

VOICES = ("zf_xiaoxiao", "zm_yunxi", "zf_xiaoni", "zm_yunjian")
SPEEDS = (0.85, 1.0, 1.15)
Times = list[tuple[str, float, float]]  # character, start and end in seconds


def main() -> None:
    """Speak, align, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=citrinet.default_model())
    parser.add_argument("--kokoro", type=Path)
    parser.add_argument("--texts", type=Path)
    parser.add_argument("--speech", type=Path)
    parser.add_argument("--count", type=int, default=60, help="of texts that are spoken")
    options = parser.parse_args()
    recognizer = citrinet.load_recognizer(options.model)
    if options.kokoro:
        entries = read_manifest(options.texts)
        texts = [citrinet.parse_transcript(entry.text or "").transcript for entry in entries]
        print_times(recognizer, speak(options.kokoro, texts[:: max(len(texts) // options.count, 1)][: options.count]))
    if options.speech:
        print_words(recognizer, options.speech)


def speak(folder: Path, texts: list[str]) -> Iterator[tuple[str, np.ndarray, Times]]:
    """Texts, samples at 16 kHz, and when their characters are said."""
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
        yield text, soxr.resample(audio.numpy(), RATE, 16_000), character_times(words, symbols, ends)


def character_times(words: list, symbols: str, ends: np.ndarray) -> Times:
    """When characters are said, of the ends of tokens: the boundary mark, a token for each symbol, another mark."""
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

"""
Make new utterances of pieces of recorded ones: new sentences in the voices and rooms of the recordings.

    python splice.py MODEL OUTPUT COUNT MANIFEST... --transcripts train.jsonl [--not MANIFEST...]

A network overfits to few sentences. Here characters are found in the recordings by forced
alignment with a model that was trained on them, and pieces of one speaker are joined. Two in three utterances say a new
sentence of sentences.py, entity markers and all, with the recordings' syllables in runs of up to five, as unit
selection does. The others join runs of two to five characters at random. Source: on-the-fly aligned data augmentation
(arXiv:2104.01393).
"""

import argparse
import json
import random
from collections import defaultdict
from dataclasses import dataclass, field
from itertools import takewhile
from pathlib import Path

import numpy as np
import soundfile
import torch
from pypinyin import Style, lazy_pinyin
from sentences import HAN, Sentence, SentenceMaker
from tqdm.auto import tqdm
from transformers import AutoModelForCTC, AutoProcessor

from citrinet import load_audio

RATE = 16_000
FADE = 160  # samples over which two pieces blend
LONGEST_RUN = 5  # syllables
LATER = 1440  # samples from the frame that turns to the next character to the border: then spliced speech reads best
SHIFTS = 4  # times that a recording is recognised for the alignment
TAGS = ("age", "gender", "dialect")


@dataclass
class Recording:
    """What was said, and where: `cuts` are the samples at which each syllable starts, and the end of the last."""

    samples: np.ndarray
    text: str
    syllables: list[str]
    cuts: list[int]


@dataclass
class Voice:
    """Recordings of one speaker with the same tags, and where each syllable is in them."""

    tags: dict
    recordings: list[Recording] = field(default_factory=list)
    places: dict[str, list[tuple[int, int]]] = field(default_factory=lambda: defaultdict(list))

    def add(self, recording: Recording) -> None:
        """Add a recording."""
        for position, syllable in enumerate(recording.syllables):
            self.places[syllable].append((len(self.recordings), position))
        self.recordings.append(recording)

    def say(self, text: str, rng: random.Random) -> list[np.ndarray] | None:
        """Pieces that say a text; none if a syllable of it was not recorded."""
        wanted, pieces = syllables(text), []
        if any(syllable not in self.places for syllable in wanted):
            return None
        while wanted:
            places = self.places[wanted[0]]
            runs = [(self._run(place, wanted), place) for place in rng.sample(places, min(6, len(places)))]
            longest = max(length for length, _ in runs)
            length, (index, start) = rng.choice([run for run in runs if run[0] >= min(longest, 2)])
            pieces.append(self.piece(index, start, length))
            wanted = wanted[length:]
        return pieces

    def _run(self, place: tuple[int, int], wanted: list[str]) -> int:
        """How many of the wanted syllables follow one another from a place on."""
        index, start = place
        heard = self.recordings[index].syllables[start : start + LONGEST_RUN]
        return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(heard, wanted, strict=False)))

    def piece(self, index: int, start: int, length: int) -> np.ndarray:
        """The samples of some syllables of a recording."""
        recording = self.recordings[index]
        return recording.samples[recording.cuts[start] : recording.cuts[start + length]].astype(np.float32)

    def babble(self, rng: random.Random) -> tuple[list[np.ndarray], Sentence]:
        """Three to five runs of two to five characters from different recordings."""
        pieces, text = [], ""
        for index in rng.sample(range(len(self.recordings)), rng.randint(3, 5)):
            spoken = self.recordings[index].text
            length = min(rng.randint(2, LONGEST_RUN), len(spoken))
            start = rng.randint(0, len(spoken) - length)
            pieces.append(self.piece(index, start, length))
            text += spoken[start : start + length]
        return pieces, Sentence(text, "babble")


def main() -> None:
    """Write recordings and their manifest."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="a model that knows the recordings, for the alignment")
    parser.add_argument("output", type=Path)
    parser.add_argument("count", type=int)
    parser.add_argument("manifests", type=Path, nargs="+")
    parser.add_argument("--transcripts", type=Path, required=True, help="manifest whose texts are varied")
    parser.add_argument("--not", dest="held_out", type=Path, nargs="*", default=[], help="manifests not to say again")
    parser.add_argument("--babble", type=float, default=0.33, help="share of random runs (default 0.33)")
    parser.add_argument("--templates", type=float, default=0.5, help="share of sentences with entities (default 0.5)")
    parser.add_argument("--catalogue", type=float, default=0.6, help="share of names of the catalogue (default 0.6)")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    voices = listen(options.model, options.manifests)
    rng = random.Random(options.seed)
    transcripts = [text for text in _texts([options.transcripts]) if HAN.fullmatch(text)]
    maker = SentenceMaker(rng, transcripts, options.catalogue)
    held_out = set(_texts(options.held_out))
    weights = [len(voice.recordings) for voice in voices]
    (options.output / "audio").mkdir(parents=True, exist_ok=True)
    with (options.output / "train.jsonl").open("w", encoding="utf-8") as file:
        for number in tqdm(range(options.count), unit="utterance", disable=None):
            voice = rng.choices(voices, weights)[0]
            random_runs = rng.random() < options.babble
            new = (voice, maker, options.templates, held_out)
            pieces, sentence = voice.babble(rng) if random_runs else new_sentence(*new)
            samples, name = join(pieces), f"audio/{number:05d}.flac"
            soundfile.write(options.output / name, samples, RATE)
            entry = {"audio_filepath": name, "duration": round(len(samples) / RATE, 3), "text": sentence.text}
            entry |= {"kind": sentence.kind, **voice.tags}
            file.write(json.dumps(entry, ensure_ascii=False) + "\n")


def listen(model_name: str, manifests: list[Path]) -> list[Voice]:
    """Align recordings; voices of whom there are at least 20."""
    model, processor = AutoModelForCTC.from_pretrained(model_name).eval(), AutoProcessor.from_pretrained(model_name)
    voices: dict[tuple, Voice] = {}
    lines = [(path, json.loads(line)) for path in manifests for line in path.read_text(encoding="utf-8").splitlines()]
    for path, entry in tqdm(lines, unit="recording", disable=None):
        text = Sentence(entry["text"], "read").spoken
        samples = load_audio(path.parent / entry["audio_filepath"])
        if HAN.fullmatch(text) and (cuts := find_cuts(model, processor, samples, text)) is not None:
            tags = {tag: entry[tag] for tag in TAGS if entry.get(tag)}
            speaker = entry["speaker"].split("*")[0]  # of a blend, the voice that is most of it
            voice = voices.setdefault((speaker, *tags.items()), Voice(tags))
            voice.add(Recording(samples, text, syllables(text), cuts))
    return [voice for voice in voices.values() if len(voice.recordings) >= 20]


def new_sentence(
    voice: Voice, maker: SentenceMaker, templates: float, held_out: set[str]
) -> tuple[list[np.ndarray], Sentence]:
    """Draw sentences, a share of them from templates, until the voice can say one."""
    while True:
        sentence = maker.template() if maker.rng.random() < templates else maker.varied()
        if sentence.spoken not in held_out and (pieces := voice.say(sentence.spoken, maker.rng)) is not None:
            return pieces, sentence


def syllables(text: str) -> list[str]:
    """Pinyin with tones, one for each character."""
    return lazy_pinyin(text, style=Style.TONE3)


def _texts(manifests: list[Path]) -> list[str]:
    lines = [line for path in manifests for line in path.read_text(encoding="utf-8").splitlines()]
    return [Sentence(json.loads(line)["text"], "read").spoken for line in lines]


@torch.no_grad()
def find_cuts(model, processor, samples: np.ndarray, text: str) -> list[int] | None:
    """Samples at which each character starts, and where the last one ends; none if the text cannot be aligned."""
    ids = processor.tokenizer(text, add_special_tokens=False)["input_ids"]
    ratio = model.config.inputs_to_logits_ratio
    if len(ids) != len(text) or processor.tokenizer.unk_token_id in ids:
        return None
    # The frames are long for the borders of syllables: the audio is heard again, shifted by parts of a frame.
    step = ratio // SHIFTS
    shifted = [np.pad(samples, (step * shift, ratio)) for shift in range(SHIFTS)]
    logits = torch.stack(
        [model(**processor(audio[: len(samples) + ratio], sampling_rate=RATE)).logits[0] for audio in shifted]
    )
    log_probs = logits.flip(0).transpose(0, 1).flatten(0, 1)
    begin, end = _spoken(samples)
    first, last = begin // step + SHIFTS - 2, end // step + SHIFTS - 2
    if last - first < 4 * len(ids):
        return None
    # CTC says blank most of the time; which of the text's characters a frame resembles most tells where one ends.
    starts = _segment(log_probs[first:last, ids].log_softmax(-1).numpy())
    borders = [(first + start - SHIFTS + 1) * step + LATER for start in starts[1:]]
    return np.maximum.accumulate([begin, *(_quietest(samples, border) for border in borders), end]).tolist()


def _spoken(samples: np.ndarray, window: int = 320) -> tuple[int, int]:
    """Where speech begins and ends: what is louder than the loudest 20 ms by less than 30 dB, and 40 ms around it."""
    energy = np.square(samples[: len(samples) // window * window]).reshape(-1, window).mean(1)
    loud = np.flatnonzero(energy > 1e-3 * energy.max())
    return max(0, (loud[0] - 2) * window), min(len(samples), (loud[-1] + 3) * window)


def _segment(scores: np.ndarray) -> list[int]:
    """Frames at which each of N characters starts, the best way through (T, N) log-probabilities."""
    best = np.full(scores.shape[1], -np.inf)
    best[0] = scores[0, 0]
    moved = np.zeros(scores.shape, bool)
    for frame in range(1, len(scores)):
        before = np.concatenate([[-np.inf], best[:-1]])
        moved[frame] = before > best
        best = np.maximum(best, before) + scores[frame]
    starts, character = [], scores.shape[1] - 1
    for frame in range(len(scores) - 1, 0, -1):
        if moved[frame, character]:
            starts.append(frame)
            character -= 1
    return [0, *reversed(starts)]


def _quietest(samples: np.ndarray, place: int, reach: int = 400, window: int = 160) -> int:
    """The place with the least energy within 25 ms."""
    start = min(max(0, place - reach), len(samples) - 2 * window)
    energy = np.convolve(np.square(samples[start : place + reach]), np.ones(window), "valid")
    return start + int(energy.argmin()) + window // 2


def join(pieces: list[np.ndarray]) -> np.ndarray:
    """One waveform, with short cross-fades."""
    joined = np.zeros(0, np.float32)
    for piece in pieces:
        fade = min(FADE, len(joined), len(piece))
        ramp = np.linspace(0, 1, fade, dtype=np.float32)
        blend = joined[len(joined) - fade :] * (1 - ramp) + piece[:fade] * ramp
        joined = np.concatenate([joined[: len(joined) - fade], blend, piece[fade:]])
    return joined


if __name__ == "__main__":
    main()

"""
Synthesise a Mandarin corpus with entities and speaker tags.

    python build_corpus.py --kokoro MODEL_DIR --transcripts train.jsonl --output CORPUS

Writes `audio/<split>/*.flac` (16 kHz) and NeMo manifests: `train.jsonl`, `valid.jsonl`, `test.jsonl` (names from the
catalogue) and `test_open.jsonl` (any names of the dictionary, whose spelling the sound does not tell). Sentences and
speakers of the last three are not in the first. What is there already is kept, so that an interrupted run goes on where
it was; a larger `--sentences` extends a corpus without changing what it has.
"""

import argparse
import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import islice
from multiprocessing import Pool
from pathlib import Path

import numpy as np
import pyworld
import soundfile
import soxr
from tqdm.auto import tqdm

from kokoro import SAMPLING_RATE, Kokoro
from sentences import HAN, Sentence, SentenceMaker
from voices import Speaker, draw_speaker

RATE = 16_000
HELD_OUT = {"test": (240, 1.0), "valid": (80, 1.0), "test_open": (120, 0.0)}  # sentences, share of catalogue names


@dataclass(frozen=True)
class Utterance:
    """A sentence and who speaks it."""

    sentence: Sentence
    speaker: Speaker
    split: str
    index: int

    @property
    def audio(self) -> str:
        """Path of the recording, from the corpus's folder."""
        return f"audio/{self.split}/{self.index:05d}.flac"


def main() -> None:
    """Synthesise what is missing, then write the manifests."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kokoro", type=Path, required=True, help="the synthesiser's folder, see kokoro.py")
    parser.add_argument("--transcripts", type=Path, required=True, help="manifest whose texts are read and varied")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--sentences", type=int, default=6000, help="training sentences (default 6000)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--processes", type=int, default=2)
    options = parser.parse_args()
    lines = options.transcripts.read_text(encoding="utf-8").splitlines()
    plan = make_plan([json.loads(line)["text"] for line in lines], options.sentences, options.seed)
    missing = [utterance for utterance in plan if not (options.output / utterance.audio).is_file()]
    for split in ("train", *HELD_OUT):
        (options.output / "audio" / split).mkdir(parents=True, exist_ok=True)
    try:
        with Pool(options.processes, _start, (options.kokoro, options.output)) as pool:
            for _ in tqdm(pool.imap_unordered(_synthesize, missing), total=len(missing), unit="sentence"):
                pass
    finally:
        write_manifests(plan, options.output)


def make_plan(transcripts: list[str], sentences: int, seed: int) -> list[Utterance]:
    """Everything to synthesise, held-out splits first; the first n training sentences are the same for every n."""
    transcripts = [text for text in transcripts if HAN.fullmatch(text)]
    plan: list[Utterance] = []
    known: set[str] = set(transcripts)
    for split, (count, catalogue) in HELD_OUT.items():
        rng = random.Random(f"{seed} {split}")
        maker = SentenceMaker(rng, transcripts, catalogue)
        for sentence in islice(_unheard(maker.template, known), count):
            plan.append(Utterance(sentence, draw_speaker(rng, held_out=True), split, len(plan)))
    rng = random.Random(f"{seed} train")
    train = islice(_training_sentences(SentenceMaker(rng, transcripts), known), sentences)
    return plan + [Utterance(s, draw_speaker(rng), "train", index) for index, s in enumerate(train)]


def _training_sentences(maker: SentenceMaker, known: set[str]) -> Iterator[Sentence]:
    """One in five a given transcript as long as they last, the others half variations, half templates."""
    given = [Sentence(text, "read") for text in maker.transcripts]
    maker.rng.shuffle(given)
    templates, varied = _unheard(maker.template, known), _unheard(maker.varied, known)
    while True:
        if given:
            yield given.pop()
        for _ in range(2):
            yield next(templates)
            yield next(varied)


def _unheard(draw, known: set[str]) -> Iterator[Sentence]:
    """Sentences that were not drawn before."""
    while True:
        sentence = draw()
        if sentence.spoken not in known:
            known.add(sentence.spoken)
            yield sentence


@cache
def _synthesizer(kokoro: Path) -> Kokoro:
    return Kokoro(kokoro)


_places: list[Path] = []


def _start(kokoro: Path, output: Path) -> None:
    _places[:] = [kokoro, output]


def _synthesize(utterance: Utterance) -> None:
    kokoro, output = _places
    speaker = utterance.speaker
    samples = _synthesizer(kokoro)(
        utterance.sentence.spoken, speaker.blend, speaker.speed, southern=speaker.accent == "south"
    )
    if speaker.child > 1:
        samples = _like_a_child(samples, speaker.child)
    samples = soxr.resample(samples, SAMPLING_RATE, RATE)
    samples = 0.5 * samples / max(np.abs(samples).max(), 1e-4)
    path = output / utterance.audio
    unfinished = path.with_suffix(".part")
    soundfile.write(unfinished, samples, RATE, format="FLAC")
    unfinished.rename(path)


def _like_a_child(samples: np.ndarray, factor: float) -> np.ndarray:
    """Raise pitch by a factor and formants by half as much, with the WORLD vocoder."""
    pitch, envelope, aperiodicity = pyworld.wav2world(samples.astype(np.float64), SAMPLING_RATE)
    bins = envelope.shape[1]
    source = np.minimum(np.arange(bins) / (1 + (factor - 1) / 2), bins - 1)
    low = source.astype(int)
    part = source - low
    high = np.minimum(low + 1, bins - 1)
    envelope = np.ascontiguousarray((1 - part) * envelope[:, low] + part * envelope[:, high])
    return pyworld.synthesize(pitch * factor, envelope, aperiodicity, SAMPLING_RATE).astype(np.float32)


def write_manifests(plan: list[Utterance], output: Path) -> None:
    """Write one manifest for each split, of the recordings that are there."""
    for split in ("train", *HELD_OUT):
        made = [u for u in plan if u.split == split and (output / u.audio).is_file()]
        lines = [json.dumps(_entry(u, output), ensure_ascii=False) for u in made]
        (output / f"{split}.jsonl").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def _entry(utterance: Utterance, output: Path) -> dict:
    duration = soundfile.info(output / utterance.audio).duration
    return {
        "audio_filepath": utterance.audio,
        "duration": round(duration, 3),
        "text": utterance.sentence.text,
        "speaker": utterance.speaker.name,
        "kind": utterance.sentence.kind,
        **utterance.speaker.tags,
    }


if __name__ == "__main__":
    main()

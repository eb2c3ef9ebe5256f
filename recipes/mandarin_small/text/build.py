"""
Write the training and the held-out sentences of the recipe.

Plain sentences are taken from transcripts, if any. All others are generated here.
"""

import random
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

from tqdm.auto import tqdm

from ..utterance import Utterance, write_utterances
from .overlap import Overlap
from .pronunciation import phonemes, read
from .selection import held_out_sentences, training_sentences
from .sources import Sentence, read_manifest_texts, read_transcripts
from .speakers import draw_speaker

FIRST_HELD_OUT = 900_000  # id
_QUESTION = re.compile("[吗呢]$|什么|怎么|哪[里儿个些]|多少|谁")


def run(
    output: str | Path,
    transcripts: Sequence[str | Path] = (),
    sentences: int = 90_000,
    seed: int = 1,
    exclude: Sequence[str | Path] = (),
) -> None:
    """
    Write `text/train.jsonl.gz` and `text/heldout.jsonl.gz`.

    The same arguments give the same files. The held-out sets are `catalogue` (templates with well-known names), `open`
    (templates with any names) and, with transcripts, `plain`.

    Args:
        output: folder of the run.
        transcripts: files of plain sentences; see `sources`.
        sentences: number of training sentences.
        seed: random seed.
        exclude: NeMo manifests whose sentences, and those that are nearly the same, are left out of training.

    Raises:
        OSError: if a file cannot be read or written.
        ValueError: if a file has no suitable content, or `sentences` is out of range.
    """
    if not 1 <= sentences <= FIRST_HELD_OUT:
        raise ValueError(f"--sentences must be 1 to {FIRST_HELD_OUT}, not {sentences}.")
    pool = read_transcripts(transcripts)
    overlap = Overlap(Sentence(text, "").plain for path in exclude for text in read_manifest_texts(path))
    held_out = held_out_sentences(pool, overlap, sentences, seed)
    for sentence, _ in held_out:
        overlap.add(sentence.plain)
    training = training_sentences(pool, overlap, sentences, seed)
    measured = _speak(held_out, FIRST_HELD_OUT, f"{seed} held out")
    trained = _speak([(sentence, None) for sentence in training], 0, f"{seed} training")
    folder = Path(output) / "text"
    write_utterances(folder / "heldout.jsonl.gz", measured)
    write_utterances(folder / "train.jsonl.gz", trained)  # last: if it exists, all files do
    print(summary([*measured, *trained]))


def summary(utterances: Iterable[Utterance]) -> str:
    """Format counts of sentences, characters and entities, a line for each set and source."""
    lines: dict[str, Counter[str]] = defaultdict(Counter)
    for utterance in utterances:
        marks = utterance.text.count("ENTITY_")
        counts = {"sentences": 1, "characters": len(utterance.spoken), "entities": marks}
        for name in (utterance.set or "train", f"{utterance.set or 'train'}/{utterance.source}"):
            lines[name].update(counts)
    return "\n".join(
        f"{name:24}" + "  ".join(f"{count:9,} {what}" for what, count in counts.items())
        for name, counts in sorted(lines.items())
    )


def _speak(sentences: Sequence[tuple[Sentence, str | None]], first: int, seed: str) -> list[Utterance]:
    """Make utterances of sentences, numbered from `first`; held-out sentences get held-out voices."""
    rng = random.Random(seed)
    utterances = []
    for number, (sentence, name) in enumerate(tqdm(sentences, desc="pronunciation", unit="sentence"), start=first):
        speaker = draw_speaker(rng, held_out=name is not None)
        words = read(re.sub("[？！]", "", sentence.text), sentence.given)
        utterances.append(
            Utterance(
                id=number,
                text=re.sub("[，？！]", "", sentence.text),
                phonemes=phonemes(words, speaker.accent) + _end(rng, sentence),
                voice=speaker.voice,
                speed=speaker.speed,
                child=speaker.child,
                age=speaker.age,
                gender=speaker.gender,
                dialect=speaker.dialect,
                source=sentence.source,
                set=name,
            )
        )
    return utterances


def _end(rng: random.Random, sentence: Sentence) -> str:
    """Punctuation at the end, in seven of ten cases, so that the voice falls, rises or stays level."""
    if rng.random() < 0.3:
        return ""
    if sentence.text.endswith("？") or _QUESTION.search(sentence.plain):
        return "?"
    if sentence.text.endswith("！"):
        return "!"
    return rng.choices(".,!", (70, 17, 13))[0]

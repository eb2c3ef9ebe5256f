"""
Writes the sentences that the recipe trains on and those that it measures with.

What has no names in it is taken from transcripts where there are any. All else is made here.
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

    The same arguments make the same files. Held out are sets `catalogue` (templates with well-known names), `open`
    (templates with any names) and, with transcripts, `plain`.

    Args:
        output: the folder of the run.
        transcripts: plain sentences; see `sources`.
        sentences: how many to train on.
        seed: of all chance.
        exclude: NeMo manifests of which no sentence, nor what is nearly the same, may be trained on.

    Raises:
        OSError: for a file that cannot be read or written.
        ValueError: for one that is not what it should be.
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
    write_utterances(folder / "train.jsonl.gz", trained)  # last: where it is, all is
    print(summary([*measured, *trained]))


def summary(utterances: Iterable[Utterance]) -> str:
    """Counts of sentences, characters and entities, a line for each set and source."""
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
    """Utterances of sentences, those of held-out sets by held-out voices, numbered from `first`."""
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
    """The mark at the end, in seven of ten cases: a speaker's voice falls, rises or is left hanging."""
    if rng.random() < 0.3:
        return ""
    if sentence.text.endswith("？") or _QUESTION.search(sentence.plain):
        return "?"
    if sentence.text.endswith("！"):
        return "!"
    return rng.choices(".,!", (70, 17, 13))[0]

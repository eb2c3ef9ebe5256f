"""Select training and held-out sentences."""

import random
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import cache, partial
from itertools import islice

from tqdm.auto import tqdm

from . import templates
from .annotate import annotate
from .names import Names
from .overlap import Overlap
from .sources import LONGEST, Sentence
from .words import characters, dictionary, level

# Shares of the training sentences; templates make up the rest, also if transcripts or rare characters give fewer.
SHARES = {"plain": 0.5, "swap": 0.035, "number": 0.04, "word": 0.02, "name": 0.025}
COVERAGE = 0.12  # maximum share of sentences for rare characters
OCCURRENCES = 8  # of every character of level 1 of GB 2312, as far as COVERAGE allows
CATALOGUE = 0.6  # share of the catalogue's well-known names in templates
_SWAPPED = re.compile("ENTITY_(PERSON_NAME|LOCATION|ORGANIZATION)([^A-Z_]+)END")
_MOST_COMMON_NAMES = re.compile("ENTITY_PERSON_NAME(?:汤姆|玛丽)END")  # every sixth sentence of Tatoeba


def held_out_sentences(
    pool: list[Sentence], excluded: Overlap, sentences: int, seed: int
) -> list[tuple[Sentence, str]]:
    """
    Draw held-out sentences.

    Args:
        pool: plain sentences.
        excluded: sentences that they must not be similar to.
        sentences: number of training sentences; each set has a twentieth of it, at least 4 and at most 300.
        seed: random seed.

    Returns:
        Sentences and the names of their sets, shuffled: `catalogue`, `open` (half as many) and `plain` (at most a tenth
        of the pool).
    """
    size = min(300, max(4, sentences // 20))
    held_out: list[tuple[Sentence, str]] = []
    taken: set[str] = set()
    for name, share, count in (("catalogue", 1.0, size), ("open", 0.0, size // 2)):
        rng = random.Random(f"{seed} {name}")
        names = Names(rng, share)
        made = _repeat(partial(templates.template, rng, names))
        made = (text for text in made if "ENTITY_" in text)  # sentences without a name are not needed
        held_out += [(s, name) for s in islice(_different(made, "template", excluded, taken), count)]
    plain = [sentence for sentence in pool if not excluded.near(sentence.plain)]
    drawn = random.Random(f"{seed} plain held out").sample(plain, min(size, len(plain) // 10))
    held_out += [(_marked(sentence), "plain") for sentence in drawn]
    random.Random(f"{seed} held out").shuffle(held_out)
    return held_out


def training_sentences(pool: list[Sentence], overlap: Overlap, sentences: int, seed: int) -> list[Sentence]:
    """
    Select and generate training sentences.

    Args:
        pool: plain sentences.
        overlap: sentences that they must not be similar to.
        sentences: number of sentences.
        seed: random seed.

    Returns:
        Distinct sentences, shuffled.
    """
    rng = random.Random(f"{seed} train")
    quota = {kind: round(share * sentences) for kind, share in SHARES.items()}
    plain = _rare_first([sentence for sentence in pool if not overlap.near(sentence.plain)], rng)
    chosen = [_marked(s) for s in tqdm(plain[: quota["plain"]], desc="markers", unit="sentence")]
    found: dict[str, Counter[str]] = defaultdict(Counter)
    for sentence in chosen:
        for kind, name in _SWAPPED.findall(sentence.text):
            found[kind][name] += 1
    names = Names(rng, CATALOGUE, found)
    renamed = (_without_the_commonest(sentence, rng, names) for sentence in chosen)
    training = list({sentence.plain: sentence for sentence in renamed if not overlap.near(sentence.plain)}.values())
    taken = {sentence.plain for sentence in training}

    def add(kind: str, made: Iterator[str], count: int) -> None:
        training.extend(islice(_different(made, kind, overlap, taken), count))

    add("swap", _swapped(plain[quota["plain"] :], names), quota["swap"])
    add("number", _repeat(lambda: templates.amount(rng)), quota["number"])
    add("word", _repeat(lambda: templates.word(rng)), quota["word"])
    add("name", _repeat(lambda: templates.lone_name(rng, names)), quota["name"])
    rare = round(COVERAGE * sentences)
    add("template", _repeat(lambda: templates.template(rng, names)), sentences - rare - len(training))
    add("coverage", _covering(training, taken, rng), rare)
    add("template", _repeat(lambda: templates.template(rng, names)), sentences - len(training))
    rng.shuffle(training)
    return training


def _repeat(make: Callable[[], str]) -> Iterator[str]:
    while True:
        yield make()


def _different(made: Iterable[str], source: str, overlap: Overlap, taken: set[str]) -> Iterator[Sentence]:
    """Filter sentences that are taken or similar to held-out ones; stops after 10,000 such sentences in a row."""
    fruitless = 0
    for text in made:
        sentence = Sentence(text, source)
        fruitless += 1
        if sentence.plain not in taken and len(sentence.plain) <= LONGEST and not overlap.near(sentence.plain):
            fruitless = 0
            taken.add(sentence.plain)
            yield sentence
        elif fruitless > 10_000:
            return


def _marked(sentence: Sentence) -> Sentence:
    return sentence if "ENTITY_" in sentence.text else replace(sentence, text=annotate(sentence.text))


def _rare_first(sentences: list[Sentence], rng: random.Random) -> list[Sentence]:
    """Shuffle sentences, but put those with rare characters first."""
    rng.shuffle(sentences)
    counts = Counter(character for sentence in sentences for character in sentence.plain)
    return sorted(sentences, key=lambda s: min(counts[character] for character in s.plain) >= OCCURRENCES)


def _without_the_commonest(sentence: Sentence, rng: random.Random, names: Names) -> Sentence:
    """Replace, in most cases, the two most common names, which occur in every sixth sentence of Tatoeba."""
    if not _MOST_COMMON_NAMES.search(sentence.text) or rng.random() < 0.3:
        return sentence
    person = templates.mark(names.draw("PERSON_NAME"), "PERSON_NAME")
    return Sentence(_MOST_COMMON_NAMES.sub(person, sentence.text), sentence.source)


def _swapped(sentences: Iterable[Sentence], names: Names) -> Iterator[str]:
    """Replace people, places and organisations in sentences by others."""
    for sentence in map(_marked, sentences):
        if _SWAPPED.search(sentence.text):
            yield _SWAPPED.sub(lambda match: templates.mark(names.draw(match[1]), match[1]), sentence.text)


def _covering(sentences: Iterable[Sentence], taken: set[str], rng: random.Random) -> Iterator[str]:
    """Sentences with rare characters of level 1 of GB 2312, the rarest first, until each occurs often enough."""
    counts = Counter(character for sentence in sentences for character in sentence.plain)
    frequent = [character for character in characters() if level(character) == 1]
    for least in range(1, OCCURRENCES + 1):
        for character in frequent:
            while counts[character] < least:
                words = _words_with()[character]
                word = rng.choice(words) if words and rng.random() < 0.85 else f"{character}字"
                text = templates.carrier(rng, word, rng.choice(_words_with()[rng.choice(frequent)] or ["汉字"]))
                if Sentence(text, "").plain not in taken:
                    counts.update(text)
                    yield text


@cache
def _words_with() -> dict[str, list[str]]:
    """Character -> words with it that are not names."""
    words: dict[str, list[str]] = defaultdict(list)
    for part, pairs in sorted(dictionary().items()):
        if part not in {"nr", "ns", "nt", "nz", "nrt", "nrfg"}:
            for word, _ in pairs:
                for character in dict.fromkeys(word):
                    words[character].append(word)
    return words

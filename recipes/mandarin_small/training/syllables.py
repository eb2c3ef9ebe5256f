"""How characters are read: 1,200 tonal syllables are learnt sooner than which of their characters is meant."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Any, cast

from pypinyin import Style, lazy_pinyin

SAMPLE = 10_000  # texts that are read as a whole


def read(text: str) -> list[str]:
    """The tonal syllable of each character as its context has it; what is no Chinese character stands for itself."""
    syllables: list[str] = lazy_pinyin(text, style=Style.TONE3, neutral_tone_with_five=True, errors=cast(Any, list))
    return syllables


def usual_readings(texts: Sequence[str]) -> dict[str, str]:
    """
    How each character is read most often.

    Args:
        texts: without markers, in any order that does not sort them; context is looked at in the first of them,
            since that takes a quarter of a millisecond a text. The others only say which characters there are.

    Returns:
        character -> syllable.
    """
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for text in islice(texts, SAMPLE):
        for character, syllable in zip(text, read(text), strict=True):
            counts[character][syllable] += 1
    usual = {character: found.most_common(1)[0][0] for character, found in counts.items()}
    return {character: read(character)[0] for character in _characters(texts)} | usual


def _characters(texts: Iterable[str]) -> list[str]:
    return sorted({character for text in texts for character in text})

"""Readings of characters: 1,200 tonal syllables are learnt faster than the characters that they stand for."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Any, cast

from pypinyin import Style, lazy_pinyin

SAMPLE = 10_000  # texts that are read in context


def read(text: str) -> list[str]:
    """The tonal syllable of each character in its context; other characters than Chinese ones stay as they are."""
    syllables: list[str] = lazy_pinyin(text, style=Style.TONE3, neutral_tone_with_five=True, errors=cast(Any, list))
    return syllables


def usual_readings(texts: Sequence[str]) -> dict[str, str]:
    """
    Find the most frequent reading of each character.

    Args:
        texts: texts without markers, not sorted. Only the first are read in context, which takes a quarter of a
            millisecond per text; the others only add characters.

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

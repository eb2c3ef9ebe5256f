"""
Parse the output of the CTC head into transcript, entities and tags.

The head writes markers inline: `ENTITY_<TYPE> ... END` around an entity, `CATEGORY_VALUE` for a speaker tag.
The set of types and categories is open; only their form is fixed.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import NamedTuple

ENTITY_PREFIX = "ENTITY_"
END = "END"
NONE = "NONE"

# Form of a marker in the vocabulary: upper case with underscores (AGE_14_25, AGE_<14, ENTITY_SONG_NAME), or END.
MARKER_PIECE = re.compile(r"[A-Z][A-Z0-9]*(?:_[A-Z0-9<>+\-]+)+|END")
# The same in running text, for callers without token ids. Here a marker must not touch other Latin letters; only END
# may be followed directly by the next entity marker.
_MARKER_IN_TEXT = (
    r"(?:(?<![A-Za-z0-9_])|(?<=(?<![A-Za-z0-9_])END))"
    rf"(?:END(?={ENTITY_PREFIX})|(?:{MARKER_PIECE.pattern})(?![A-Za-z0-9_]))"
)
# Characters of scripts without spaces between words, and their punctuation.
_UNSPACED = re.compile(
    r"[\u2e80-\u303f\u3040-\u30ff\u3100-\u312f\u31a0-\u9fff\uf900-\ufaff\uff00-\uffef\U00020000-\U0003ffff]"
)


class Span(NamedTuple):
    """Frames [start, end) of a character and the index of the token it came from."""

    start: float
    end: float
    token: int


class Marker(NamedTuple):
    """A tag or entity marker: its position [start, end) in the text, and its name."""

    start: int
    end: int
    name: str


@dataclass
class Entity:
    """An entity: its type, its text and its position [start, end) in the transcript."""

    type: str
    text: str
    start: int
    end: int


@dataclass
class Transcript:
    """
    A parsed text with markers.

    Args:
        text: output of the CTC head.
        transcript: the text without markers.
        entities: entities in order of their start, with positions in `transcript`.
        tags: category -> its last label in the text.
        sources: for each character of `transcript` its index in `text`.
        tag_sources: category -> index of its label in `text`.
    """

    text: str
    transcript: str
    entities: list[Entity] = field(default_factory=list)
    tags: dict[str, str] = field(default_factory=dict)
    sources: list[int] = field(default_factory=list)
    tag_sources: dict[str, int] = field(default_factory=dict)


def find_markers(text: str, labels: list[str] | None = None) -> list[Marker]:
    """
    Find markers by their form, if there are no token ids to find them.

    Args:
        text: output of the CTC head; markers may directly follow or precede non-Latin characters, as in `滴鸡精END调`.
        labels: known tag labels, which are found even without spaces between them.

    Returns:
        The markers in order.
    """
    matches = _marker_pattern(tuple(labels or ())).finditer(text)
    return [Marker(match.start(), match.end(), match.group()) for match in matches]


@lru_cache
def _marker_pattern(labels: tuple[str, ...]) -> re.Pattern[str]:
    known = "|".join(re.escape(label) for label in sorted(labels, key=len, reverse=True) if label != NONE)
    return re.compile(f"{known}|{_MARKER_IN_TEXT}" if known else _MARKER_IN_TEXT)


def is_entity_marker(name: str) -> bool:
    """Whether a marker opens or closes an entity; otherwise it is a speaker tag."""
    return name == END or name.startswith(ENTITY_PREFIX)


def parse_transcript(text: str, markers: list[Marker] | None = None, categories: list[str] | None = None) -> Transcript:
    """
    Parse a text with markers. It accepts any text, and no spoken text is lost.

    An `END` without an open entity is dropped. Entities may be nested. An unclosed entity ends at the next marker.

    Args:
        text: output of the CTC head.
        markers: positions of the markers, known from token ids; by default they are found by their form.
        categories: names of tag categories, needed for those that contain an underscore.

    Returns:
        [`Transcript`].
    """
    markers = find_markers(text) if markers is None else markers
    sources = _kept(text, markers)
    result = Transcript(text, "".join([text[i] for i in sources]), sources=sources)
    open_entities: list[Marker] = []
    for marker in markers:
        if marker.name.startswith(ENTITY_PREFIX):
            open_entities.append(marker)
        elif marker.name == END:
            if open_entities:
                _add_entity(result, open_entities.pop(), marker.start)
        else:
            category = _category(marker.name, categories or [])
            result.tags[category] = marker.name
            result.tag_sources[category] = marker.start
    for marker in open_entities:
        _add_entity(result, marker, min((m.start for m in markers if m.start >= marker.end), default=len(text)))
    result.entities.sort(key=lambda entity: (entity.start, -entity.end))
    return result


def entity_types(vocabulary: Iterable[str]) -> list[str]:
    """Return the types of the entity markers in a vocabulary, sorted."""
    pieces = (token.lstrip("▁") for token in vocabulary)
    return sorted({piece.removeprefix(ENTITY_PREFIX) for piece in pieces if piece.startswith(ENTITY_PREFIX)})


def target_text(text: str, keep_tags: bool, keep_entities: bool) -> str:
    """Make the target text of the CTC head: remove tag or entity markers unless they are kept."""
    markers = find_markers(text)
    unwanted = [m for m in markers if not (keep_entities if is_entity_marker(m.name) else keep_tags)]
    return parse_transcript(text, unwanted).transcript.strip()


def split_words(text: str) -> list[tuple[int, int]]:
    """
    Return the spans [start, end) of the words in a text.

    Words are separated by spaces, as in English. Each character of a script without spaces between words (Chinese,
    Japanese) is a word, as for the mixed error rate. Punctuation belongs to the preceding word.
    """
    words: list[tuple[int, int]] = []
    joins = False  # whether a letter would continue the last word
    for index, char in enumerate(text):
        if char.isspace():
            continue
        touches = bool(words) and words[-1][1] == index
        is_letter = char.isalnum()
        unspaced = is_letter and _UNSPACED.match(char) is not None
        if touches and (not is_letter or (joins and not unspaced)):
            words[-1] = (words[-1][0], index + 1)
        else:
            words.append((index, index + 1))
            joins = not unspaced
    return words


def joint(before: str, after: str) -> str:
    """Return the separator of two consecutive texts: a space, or nothing next to a script without spaces."""
    if not before or not after or _UNSPACED.match(before[-1]) or _UNSPACED.match(after[0]):
        return ""
    return " "


def is_unspaced(char: str) -> bool:
    """Whether a character belongs to a script without spaces between words, or to its punctuation."""
    return _UNSPACED.match(char) is not None


def _kept(text: str, markers: list[Marker]) -> list[int]:
    """Indices of the characters that remain without the markers and the spaces around them."""
    in_marker = {index for marker in markers for index in range(marker.start, marker.end)}
    kept: list[int] = []
    done = 0
    for marker in sorted(markers):
        if marker.start < done:  # in the same gap as the one before
            continue
        start = end = marker.start
        while start > done and text[start - 1].isspace():
            start -= 1
        while end < len(text) and (end in in_marker or text[end].isspace()):
            end += 1
        kept += [*range(done, start), *_one_space(text, range(start, end), in_marker)]
        done = end
    return [*kept, *range(done, len(text))]


def _one_space(text: str, gap: range, in_marker: set[int]) -> list[int]:
    """Indices that remain of a gap with markers: one space between characters of scripts with spaces, or none."""
    before, after = gap.start - 1, gap.stop
    if before < 0 or after == len(text) or _UNSPACED.match(text[before]) or _UNSPACED.match(text[after]):
        return []
    return [index for index in gap if index not in in_marker][:1]


def _add_entity(result: Transcript, opened: Marker, stop: int) -> None:
    inside = [i for i, source in enumerate(result.sources) if opened.end <= source < stop]
    while inside and result.transcript[inside[0]].isspace():
        inside.pop(0)
    while inside and result.transcript[inside[-1]].isspace():
        inside.pop()
    if inside:
        start, end = inside[0], inside[-1] + 1
        result.entities.append(Entity(opened.name[len(ENTITY_PREFIX) :], result.transcript[start:end], start, end))


def _category(name: str, categories: list[str]) -> str:
    known = [category for category in categories if name.startswith(f"{category}_")]
    return max(known, key=len) if known else name.split("_", 1)[0]

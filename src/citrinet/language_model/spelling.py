"""Split texts and vocabulary pieces into the units of language models and hot words: characters and markers."""

from collections.abc import Mapping, Sequence

import numpy as np

from ..decoding_citrinet import WORD_BOUNDARY
from ..transcript_citrinet import MARKER_PIECE, find_markers, is_unspaced


def split_characters(text: str) -> list[str]:
    """
    Split a text into characters and markers; `▁` is put before words of scripts with spaces between words.

    ```python
    >>> split_characters("来首ENTITY_SONG_NAME Let it be END")
    ['来', '首', 'ENTITY_SONG_NAME', '▁', 'L', 'e', 't', '▁', 'i', 't', '▁', 'b', 'e', 'END']
    ```
    """
    units: list[str] = []
    end = 0
    for marker in find_markers(text):
        units += _characters(text[end : marker.start])
        units.append(marker.name)
        end = marker.end
    return units + _characters(text[end:])


def _characters(text: str) -> list[str]:
    return [char for word in text.split() for char in _spelled(WORD_BOUNDARY + word)]


def _spelled(piece: str) -> list[str]:
    """Return the characters of a piece, without a word boundary before a character of a script without spaces."""
    says_nothing = piece[:1] == WORD_BOUNDARY and len(piece) > 1 and is_unspaced(piece[1])
    return list(piece[1:] if says_nothing else piece)


def is_marker(piece: str) -> bool:
    """Whether a whole piece is an entity marker or a tag."""
    return MARKER_PIECE.fullmatch(piece.lstrip(WORD_BOUNDARY)) is not None


def spell(pieces: Sequence[str], ids: Mapping[str, int], unknown: int) -> np.ndarray:
    """
    Split each piece into units.

    A piece that is a unit becomes that unit; a marker that is not a unit becomes empty; any other piece becomes its
    characters, without `▁` if that is not a unit.

    Args:
        pieces: pieces of a vocabulary.
        ids: unit -> id.
        unknown: id for other characters.

    Returns:
        (pieces, L) ids, padded with -1.
    """
    spelled = [_unit_ids(piece, ids, unknown) for piece in pieces]
    units = np.full((len(spelled), max(1, *map(len, spelled))), -1, np.int64)
    for row, found in zip(units, spelled, strict=True):
        row[: len(found)] = found
    return units


def _unit_ids(piece: str, ids: Mapping[str, int], unknown: int) -> list[int]:
    whole = next((name for name in (piece, piece.lstrip(WORD_BOUNDARY)) if name in ids), None)
    if whole is not None and (whole == piece or is_marker(piece)):
        return [ids[whole]]
    if is_marker(piece):
        return []
    chars = [char for char in _spelled(piece) if char != WORD_BOUNDARY or char in ids]
    return [ids.get(char, unknown) for char in chars]


__all__ = ["is_marker", "spell", "split_characters"]

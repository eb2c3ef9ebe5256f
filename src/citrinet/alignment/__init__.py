"""Forced alignment: times of the characters, words and entities of a given text."""

from .aligner import NOT_SAID, AlignedChunk, AlignedEntity, AlignedSegment, Alignment, align, align_waveform
from .path import best_path
from .target import TextTokenizer, Token

__all__ = [
    "NOT_SAID",
    "AlignedChunk",
    "AlignedEntity",
    "AlignedSegment",
    "Alignment",
    "TextTokenizer",
    "Token",
    "align",
    "align_waveform",
    "best_path",
]

"""Compare texts, in training and in evaluation: text normalisation and edit counts."""

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

try:
    import jiwer
except ModuleNotFoundError as error:
    if error.name != "jiwer":
        raise
    raise ImportError('error rates need the package jiwer: pip install "citrinet[evaluate]"') from error

from .transcript_citrinet import END, ENTITY_PREFIX, Marker, find_markers


@dataclass(frozen=True)
class Edits:
    """
    Edit counts between a reference and a hypothesis.

    Args:
        substitutions, deletions, insertions: number of each.
        length: number of characters or words of the reference.
    """

    substitutions: int
    deletions: int
    insertions: int
    length: int

    @property
    def errors(self) -> int:
        """Total number of edits."""
        return self.substitutions + self.deletions + self.insertions


def normalize(text: str) -> str:
    """
    Normalise a text for error rates: NFKC, lower case, only letters, marks and numbers, without spaces.

    Args:
        text: text without markers.
    """
    lowered = unicodedata.normalize("NFKC", text).lower()
    return "".join(char for char in lowered if unicodedata.category(char)[0] in "LMN")


def count_edits(reference: Sequence[str], hypothesis: Sequence[str]) -> Edits:
    """
    Count edits with jiwer.

    Args:
        reference: characters or words without spaces in them; may be empty.
        hypothesis: as `reference`.
    """
    words = jiwer.process_words(" ".join(reference), " ".join(hypothesis))
    return Edits(words.substitutions, words.deletions, words.insertions, len(reference))


def character_edits(reference: str, hypothesis: str) -> Edits:
    """
    Count edits between the normalised characters of two texts.

    Args:
        reference: reference text without markers.
        hypothesis: recognised text without markers.
    """
    return count_edits(normalize(reference), normalize(hypothesis))


def align(reference: str, hypothesis: str) -> list[tuple[str, str]]:
    """
    Show where two normalised texts differ.

    Returns:
        (`equal`, text), (`delete`, text of the reference) and (`insert`, text of the hypothesis) in order; a
        substitution is a deletion and an insertion.
    """
    runs: list[tuple[str, str]] = []
    for chunk in jiwer.process_words(" ".join(reference), " ".join(hypothesis)).alignments[0]:
        left = reference[chunk.ref_start_idx : chunk.ref_end_idx]
        right = hypothesis[chunk.hyp_start_idx : chunk.hyp_end_idx]
        runs += [("equal", left)] if chunk.type == "equal" else [("delete", left), ("insert", right)]
    return [(kind, text) for kind, text in runs if text]


def find_corpus_markers(texts: Sequence[str], labels: list[str]) -> list[list[Marker]]:
    """
    Find the markers of each text of a corpus.

    If no text has an entity marker, END is taken as an English word in upper case, as in some English corpora.

    Args:
        texts: all texts of the corpus.
        labels: known tag labels, which are found even without spaces between them.
    """
    found = [find_markers(text, labels) for text in texts]
    has_entities = any(marker.name.startswith(ENTITY_PREFIX) for markers in found for marker in markers)
    return [[marker for marker in markers if has_entities or marker.name != END] for markers in found]

"""How texts are compared, in training and in evaluation: one normalisation, one way to count edits."""

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
    What turns a reference into a hypothesis.

    Args:
        substitutions, deletions, insertions: how many of each.
        length: characters or words of the reference.
    """

    substitutions: int
    deletions: int
    insertions: int
    length: int

    @property
    def errors(self) -> int:
        """Edits of all kinds."""
        return self.substitutions + self.deletions + self.insertions


def normalize(text: str) -> str:
    """
    Text as error rates compare it: NFKC, lower case, letters, marks and digits only, spaces dropped too.

    Args:
        text: without markers.
    """
    lowered = unicodedata.normalize("NFKC", text).lower()
    return "".join(char for char in lowered if unicodedata.category(char)[0] in "LMN")


def count_edits(reference: Sequence[str], hypothesis: Sequence[str]) -> Edits:
    """
    Count edits with jiwer.

    Args:
        reference: characters or words, none of which holds a space; may be empty.
        hypothesis: the same.
    """
    words = jiwer.process_words(" ".join(reference), " ".join(hypothesis))
    return Edits(words.substitutions, words.deletions, words.insertions, len(reference))


def character_edits(reference: str, hypothesis: str) -> Edits:
    """
    Edits between the normalised characters of two texts.

    Args:
        reference: what was spoken, without markers.
        hypothesis: what a model wrote, without markers.
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

    Where no text has an entity marker, END is an English word in upper case, as corpora and models of English write it.

    Args:
        texts: all of the corpus.
        labels: known tag labels, found where they are glued to one another too.
    """
    found = [find_markers(text, labels) for text in texts]
    has_entities = any(marker.name.startswith(ENTITY_PREFIX) for markers in found for marker in markers)
    return [[marker for marker in markers if has_entities or marker.name != END] for markers in found]

"""Keep held-out sentences, and sentences that are nearly the same, out of training."""

from collections import defaultdict
from collections.abc import Iterable, Iterator

_CONTAINED = 6  # characters; a shorter sentence inside another does not count as a copy


class Overlap:
    """
    Checks whether a sentence is too similar to one of a set.

    Two sentences are too similar if one contains the other, or they differ only by one or two characters at either end.

    Args:
        sentences: sentences of the set, without punctuation and markers.
    """

    def __init__(self, sentences: Iterable[str]):
        self._trimmed: set[str] = set()
        self._whole: dict[str, set[str]] = defaultdict(set)  # by their first six characters
        self._parts: dict[str, set[str]] = defaultdict(set)  # by any six of their characters
        for sentence in sentences:
            self.add(sentence)

    def add(self, sentence: str) -> None:
        """Add a sentence to the set."""
        self._trimmed.update(_trimmed(sentence))
        for index, part in enumerate(_parts(sentence)):
            self._parts[part].add(sentence)
            if index == 0:
                self._whole[part].add(sentence)

    def near(self, sentence: str) -> bool:
        """Whether a sentence is too similar to one of the set."""
        if not self._trimmed.isdisjoint(_trimmed(sentence)):
            return True
        if any(sentence in other for other in self._parts.get(sentence[:_CONTAINED], ())):
            return True
        return any(other in sentence for part in _parts(sentence) for other in self._whole.get(part, ()))


def _trimmed(sentence: str) -> Iterator[str]:
    """Remove up to two characters from either side of a sentence; up to one if it has 5 to 7, none if fewer."""
    most = 2 if len(sentence) > 7 else 1 if len(sentence) > 4 else 0
    for start in range(most + 1):
        for end in range(most + 1):
            yield sentence[start : len(sentence) - end]


def _parts(sentence: str) -> Iterator[str]:
    for start in range(len(sentence) - _CONTAINED + 1):
        yield sentence[start : start + _CONTAINED]

"""Trie of token sequences with suffix links, for n-gram models and hot words."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np


@dataclass(frozen=True)
class SuffixTrie:
    """
    A trie of token sequences in one sorted array, with vectorised look-ups.

    Node 0 is the empty sequence. The others are numbered level by level, within a level by parent and then by last
    token, so that `parent * size + token` is strictly increasing.

    Args:
        keys: (nodes - 1,) int64, `parent * size + token` of each node except the first.
        size: number of different tokens.
    """

    keys: np.ndarray
    size: int

    @property
    def parents(self) -> np.ndarray:
        """(nodes - 1,) node of each sequence without its last token."""
        return self.keys // self.size

    @property
    def tokens(self) -> np.ndarray:
        """(nodes - 1,) the last token of each sequence."""
        return self.keys % self.size

    @cached_property
    def levels(self) -> list[int]:
        """First node of each sequence length, starting with length 0, followed by the number of nodes."""
        levels, parents = [0, 1], self.parents
        while levels[-1] <= len(self.keys):
            levels.append(1 + int(np.searchsorted(parents, levels[-1])))
        return levels

    def find(self, nodes: np.ndarray, tokens: np.ndarray) -> np.ndarray:
        """Return the children of nodes for tokens, -1 if there is none."""
        wanted = nodes * self.size + tokens
        places = np.minimum(self.keys.searchsorted(wanted), len(self.keys) - 1)
        return np.where(self.keys[places] == wanted, places + 1, -1)

    @cached_property
    def suffixes(self) -> np.ndarray:
        """(nodes,) node of the longest proper suffix of each sequence that is in the trie."""
        suffixes = np.zeros(len(self.keys) + 1, np.int64)
        parents, tokens = self.parents, self.tokens
        for start, stop in pairwise(self.levels[2:]):
            level = np.arange(start, stop)
            suffixes[level] = self.longest(suffixes[parents[level - 1]], tokens[level - 1], suffixes)
        return suffixes

    def longest(self, nodes: np.ndarray, tokens: np.ndarray, suffixes: np.ndarray | None = None) -> np.ndarray:
        """Append a token to each sequence, and return the node of the longest suffix that is in the trie."""
        suffixes = self.suffixes if suffixes is None else suffixes
        found = self.find(nodes, tokens)
        open_ = np.flatnonzero((found < 0) & (nodes > 0))
        nodes = nodes[open_]
        while len(open_):
            nodes = suffixes[nodes]
            found[open_] = self.find(nodes, tokens[open_])
            rest = (found[open_] < 0) & (nodes > 0)
            open_, nodes = open_[rest], nodes[rest]
        longest: np.ndarray = np.maximum(found, 0)
        return longest


def build_trie(sequences: Sequence[Sequence[int]], size: int) -> tuple[SuffixTrie, np.ndarray]:
    """
    Make a trie of sequences and all their prefixes.

    Args:
        sequences: non-empty sequences of tokens below `size`.
        size: number of different tokens.

    Returns:
        The trie and the node of each sequence.
    """
    nodes = np.zeros(len(sequences), np.int64)
    lengths = np.array([len(sequence) for sequence in sequences], np.int64)
    keys: list[np.ndarray] = []
    count = 1
    for length in range(int(lengths.max(initial=0))):
        longer = np.flatnonzero(lengths > length)
        added = np.array([sequences[index][length] for index in longer.tolist()], np.int64)
        level, places = np.unique(nodes[longer] * size + added, return_inverse=True)
        nodes[longer] = count + places
        keys.append(level)
        count += len(level)
    return SuffixTrie(np.concatenate(keys) if keys else np.zeros(0, np.int64), size), nodes


__all__ = ["SuffixTrie", "build_trie"]

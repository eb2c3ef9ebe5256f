"""Sequences of tokens with the longest suffix of each: what n-gram models and hot words both look up."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np


@dataclass(frozen=True)
class SuffixTrie:
    """
    A trie of token sequences in one sorted array; many look-ups are one NumPy call.

    Node 0 is the empty sequence. The others are numbered level by level, in a level by their parent, then by their last
    token, so that `parent * size + token` rises from each node to the next.

    Args:
        keys: (nodes - 1,) int64, `parent * size + token` of each node but the first.
        size: number of different tokens.
    """

    keys: np.ndarray
    size: int

    @property
    def parents(self) -> np.ndarray:
        """(nodes - 1,) the sequence without its last token."""
        return self.keys // self.size

    @property
    def tokens(self) -> np.ndarray:
        """(nodes - 1,) the last token of each sequence."""
        return self.keys % self.size

    @cached_property
    def levels(self) -> list[int]:
        """First node of each length of sequence, 0 first, and the number of nodes at the end."""
        levels, parents = [0, 1], self.parents
        while levels[-1] <= len(self.keys):
            levels.append(1 + int(np.searchsorted(parents, levels[-1])))
        return levels

    def find(self, nodes: np.ndarray, tokens: np.ndarray) -> np.ndarray:
        """Children of nodes by token; -1 where there is none."""
        wanted = nodes * self.size + tokens
        places = np.minimum(self.keys.searchsorted(wanted), len(self.keys) - 1)
        return np.where(self.keys[places] == wanted, places + 1, -1)

    @cached_property
    def suffixes(self) -> np.ndarray:
        """(nodes,) the longest proper suffix of each sequence that is in the trie."""
        suffixes = np.zeros(len(self.keys) + 1, np.int64)
        parents, tokens = self.parents, self.tokens
        for start, stop in pairwise(self.levels[2:]):
            level = np.arange(start, stop)
            suffixes[level] = self.longest(suffixes[parents[level - 1]], tokens[level - 1], suffixes)
        return suffixes

    def longest(self, nodes: np.ndarray, tokens: np.ndarray, suffixes: np.ndarray | None = None) -> np.ndarray:
        """The longest suffix of each sequence with one more token that is in the trie."""
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
    Make a trie of sequences and all that they begin with.

    Args:
        sequences: tokens below `size`; none may be empty.
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

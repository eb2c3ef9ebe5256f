"""Back-off n-gram models that score many continuations at once; plain NumPy."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from .suffix_trie import SuffixTrie

START, STOP, UNKNOWN = "<s>", "</s>", "<unk>"


@dataclass(frozen=True)
class NGramModel:
    """
    An n-gram model with back-off (Katz 1987), as ARPA files describe it.

    A state is the node of the longest sequence of the last tokens that the model knows.

    Args:
        vocabulary: the tokens, `<unk>`, `<s>` and `</s>` among them.
        trie: the n-grams.
        log_probs: (nodes,) float32, natural logarithm of the probability of the last token after those before it.
        back_offs: (nodes,) float32, natural logarithm of the back-off weight.
    """

    vocabulary: list[str]
    trie: SuffixTrie
    log_probs: np.ndarray
    back_offs: np.ndarray

    @property
    def order(self) -> int:
        """The length of the longest n-grams."""
        return len(self.trie.levels) - 2

    @property
    def counts(self) -> list[int]:
        """Number of n-grams of each length, from 1."""
        return np.diff(self.trie.levels[1:]).tolist()

    @cached_property
    def ids(self) -> dict[str, int]:
        """Token -> id."""
        return {token: index for index, token in enumerate(self.vocabulary)}

    @property
    def start(self) -> int:
        """The state at the start of a sentence."""
        token = self.ids.get(START)
        return 0 if token is None else int(self.next_states(np.zeros(1, np.int64), np.array([token]))[0])

    @property
    def stop(self) -> int:
        """The id of what ends a sentence."""
        return self.ids[STOP]

    @cached_property
    def _contexts(self) -> np.ndarray:
        """(nodes,) the state that an n-gram leads to: itself, or its suffix if it is of the longest."""
        contexts = np.arange(len(self.log_probs))
        longest = self.trie.levels[-2]
        contexts[longest:] = self.trie.suffixes[longest:]
        return contexts

    def next_states(self, states: np.ndarray, tokens: np.ndarray) -> np.ndarray:
        """States after one more token each."""
        return self.score(states, tokens)[1]

    def score(self, states: np.ndarray, tokens: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """
        Score tokens after what states stand for.

        Args:
            states: (n,) int64 states.
            tokens: (n,) int64 ids.

        Returns:
            (n,) natural logarithms of their probabilities, and (n,) the states that they lead to.
        """
        trie = self.trie
        found = trie.find(states, tokens)
        scores = np.zeros(len(states), np.float32)
        open_ = np.flatnonzero(found < 0)
        nodes = states[open_]
        while len(open_):
            scores[open_] += self.back_offs[nodes]
            nodes = trie.suffixes[nodes]
            found[open_] = matches = trie.find(nodes, tokens[open_])
            rest = matches < 0
            open_, nodes = open_[rest], nodes[rest]
        return scores + self.log_probs[found], self._contexts[found]

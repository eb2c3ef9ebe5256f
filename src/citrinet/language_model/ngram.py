"""Back-off n-gram models with vectorised scoring; plain NumPy."""

import io
import json
import zipfile
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import BinaryIO

import numpy as np

from .suffix_trie import SuffixTrie

START, STOP, UNKNOWN = "<s>", "</s>", "<unk>"


@dataclass(frozen=True)
class NGramModel:
    """
    An n-gram model with back-off (Katz 1987), as in ARPA files.

    A state is the trie node of the longest known sequence of preceding tokens.

    Args:
        vocabulary: the tokens, including `<unk>`, `<s>` and `</s>`.
        trie: the n-grams.
        log_probs: (nodes,) float32, natural log-probability of the last token given those before it.
        back_offs: (nodes,) float32, natural logarithm of the back-off weight.
        settings: see [`LanguageModel`].
    """

    vocabulary: list[str]
    trie: SuffixTrie
    log_probs: np.ndarray
    back_offs: np.ndarray
    settings: dict[str, float] = field(default_factory=dict)

    @property
    def order(self) -> int:
        """Length of the longest n-grams."""
        return len(self.trie.levels) - 2

    @property
    def counts(self) -> list[int]:
        """Number of n-grams of each length, from 1."""
        return np.diff(self.trie.levels[1:]).tolist()

    @cached_property
    def ids(self) -> dict[str, int]:
        """Token -> id."""
        return {token: index for index, token in enumerate(self.vocabulary)}

    def begin(self) -> int:
        """Return the state at the start of a sentence."""
        root, token = np.zeros(1, np.int64), self.ids.get(START)
        return 0 if token is None else int(self.score(root, np.array([token]))[1][0])

    @property
    def stop(self) -> int:
        """Id of the end-of-sentence token."""
        return self.ids[STOP]

    @cached_property
    def _contexts(self) -> np.ndarray:
        """(nodes,) the state after each n-gram: the n-gram itself, or its suffix if it has the longest length."""
        contexts = np.arange(len(self.log_probs))
        longest = self.trie.levels[-2]
        contexts[longest:] = self.trie.suffixes[longest:]
        return contexts

    def score(self, states: np.ndarray, tokens: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """
        Score tokens given states.

        Args:
            states: (n,) int64 states.
            tokens: (n,) int64 ids.

        Returns:
            (n,) natural log-probabilities of the tokens, and (n,) the next states.
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

    def save(self, file: BinaryIO) -> None:
        """
        Write a small file, with probabilities quantised to 8 bits, in equal steps for each length of n-grams.

        The bytes are the same on every machine.
        """
        levels = self.trie.levels
        children = np.bincount(self.trie.parents, minlength=levels[-2])
        coded = [_quantize(self.log_probs[start:stop]) for start, stop in pairwise(levels[1:])]
        weights = [_quantize(self.back_offs[start:stop]) for start, stop in pairwise(levels[1:-1])]
        np.savez(
            file,
            vocabulary=np.frombuffer("\n".join(self.vocabulary).encode(), np.uint8),
            settings=np.frombuffer(json.dumps(self.settings, sort_keys=True).encode(), np.uint8),
            tokens=self.trie.tokens.astype(_smallest(len(self.vocabulary))),
            children=children.astype(_smallest(int(children.max()) + 1)),
            log_probs=np.concatenate([codes for codes, _ in coded]),
            log_prob_values=np.stack([values for _, values in coded]),
            back_offs=np.concatenate([np.zeros(0, np.uint8), *(codes for codes, _ in weights)]),
            back_off_values=np.array([values for _, values in weights], np.float32).reshape(-1, 256),
        )

    @classmethod
    def load(cls, path: str | Path) -> "NGramModel":
        """
        Read a file written by [`save`].

        Raises:
            OSError: if it cannot be read.
            ValueError: if it is damaged, or not such a file.
        """
        content = Path(path).read_bytes()
        try:
            with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
                return cls._of({name: arrays[name] for name in arrays.files})
        except (ValueError, KeyError, IndexError, TypeError, EOFError, zipfile.BadZipFile) as error:
            raise ValueError(f"{path} is no language model of this package, or damaged.") from error

    @classmethod
    def _of(cls, arrays: dict[str, np.ndarray]) -> "NGramModel":
        vocabulary = arrays["vocabulary"].tobytes().decode().split("\n")
        children = arrays["children"].astype(np.int64)
        parents = np.repeat(np.arange(len(children)), children)
        tokens = arrays["tokens"].astype(np.int64)
        trie = SuffixTrie(parents * len(vocabulary) + tokens, len(vocabulary))
        if children[0] != len(vocabulary) or (np.diff(trie.keys) <= 0).any() or tokens.max() >= len(vocabulary):
            raise ValueError("the n-grams are not in order")
        counts = np.diff(trie.levels[1:])
        values, weights = arrays["log_prob_values"], arrays["back_off_values"]
        log_probs = values[np.repeat(np.arange(len(counts)), counts), arrays["log_probs"]]
        back_offs = np.zeros(len(tokens) + 1, np.float32)
        kept = counts[:-1]
        back_offs[1 : 1 + kept.sum()] = weights[np.repeat(np.arange(len(kept)), kept), arrays["back_offs"]]
        settings = json.loads(arrays["settings"].tobytes())
        return cls(vocabulary, trie, np.append(np.float32(0), log_probs), back_offs, settings)


def _quantize(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Quantise values: (n,) 8-bit codes, and their (256,) values in equal steps from smallest to largest."""
    meanings = np.linspace(values.min(), values.max(), 256, dtype=np.float32)
    steps = (values - meanings[0]) / max(float(meanings[1] - meanings[0]), 1e-9)
    return np.rint(steps).clip(0, 255).astype(np.uint8), meanings


def _smallest(size: int) -> type[np.unsignedinteger]:
    return np.uint16 if size <= 2**16 else np.uint32


__all__ = ["START", "STOP", "UNKNOWN", "NGramModel"]

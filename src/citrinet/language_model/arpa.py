"""Read and write n-gram models in ARPA format, as SRILM and KenLM do."""

import gzip
import itertools
import math
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np

from .ngram import START, STOP, UNKNOWN, NGramModel
from .suffix_trie import SuffixTrie

_LOG_10 = math.log(10)
_NEVER = -99.0  # log10 probability of <s> in ARPA files


def read(path: str | Path) -> NGramModel:
    """
    Read an ARPA file.

    Args:
        path: the file, in UTF-8, optionally compressed with gzip.

    Raises:
        OSError: if it cannot be read.
        ValueError: if it is not an ARPA file, or damaged.
    """
    with Path(path).open("rb") as file:
        is_compressed = file.read(2) == b"\x1f\x8b"
    opened: Any = gzip.open if is_compressed else open
    try:
        with opened(path, "rt", encoding="utf-8") as file:
            return _Reader(file).read()
    except (UnicodeDecodeError, EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ValueError(f"{path} is no ARPA file, or damaged: {error}") from error
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


class _Reader:
    def __init__(self, file: IO[str]):
        self._lines = self._stripped(file)
        self._number = 0
        self.ids: dict[str, int] = {}
        self.keys: list[np.ndarray] = []
        self.log_probs = [np.zeros(1)]
        self.back_offs = [np.zeros(1)]

    def _stripped(self, file: IO[str]) -> Iterator[str]:
        for line in file:
            self._number += 1
            if stripped := line.strip("\r\n \t"):
                yield stripped

    def read(self) -> NGramModel:
        counts = self._counts()
        for length, count in enumerate(counts, start=1):
            self._section(length, count)
        if next(self._lines, "") != "\\end\\":
            raise ValueError(f"line {self._number}: \\end\\ is expected, or a number of n-grams is wrong.")
        if UNKNOWN not in self.ids:
            self._add_unknown()
        names = list(self.ids)
        trie = SuffixTrie(np.concatenate(self.keys), len(names))
        log_probs, back_offs = (
            (np.concatenate(parts) * _LOG_10).astype(np.float32) for parts in (self.log_probs, self.back_offs)
        )
        return NGramModel(names, trie, log_probs, back_offs)

    def _counts(self) -> list[int]:
        line = next((line for line in self._lines if line == "\\data\\"), None)
        if line is None:
            raise ValueError("it is no ARPA file, which has a line \\data\\.")
        counts: list[int] = []
        for line in self._lines:
            if line == "\\1-grams:":
                break
            name, _, count = line.partition("=")
            if name.split() != ["ngram", str(len(counts) + 1)] or not count.strip().isdecimal():
                raise ValueError(f"line {self._number}: `ngram {len(counts) + 1}=...` is expected.")
            counts.append(int(count))
        if not counts or not all(counts):
            raise ValueError("it holds no n-grams, or none of some length.")
        return counts

    def _section(self, length: int, count: int) -> None:
        if length > 1 and next(self._lines, "") != f"\\{length}-grams:":
            raise ValueError(f"line {self._number}: \\{length}-grams: is expected, or a number of n-grams is wrong.")
        rows = [line.split() for line in itertools.islice(self._lines, count)]
        for place, row in enumerate(rows):
            if len(row) == length + 1:
                row.append("0")
            elif len(row) != length + 2:
                raise ValueError(f"line {place + 1} of the {length}-grams is none, or a number of n-grams is wrong.")
        if len(rows) < count:
            raise ValueError(f"{count} {length}-grams are announced, {len(rows)} are there.")
        columns = list(zip(*rows, strict=True))
        del rows
        if length == 1:
            self.ids = {word: index for index, word in enumerate(columns[1])}
        try:
            ids = np.array([[self.ids[word] for word in column] for column in columns[1:-1]], np.int64).T
        except KeyError as error:
            raise ValueError(f"{error.args[0]!r} is in an n-gram, but not among the 1-grams.") from error
        self._add(ids, np.array(columns[0], float), np.array(columns[-1], float))

    def _add(self, ids: np.ndarray, log_probs: np.ndarray, back_offs: np.ndarray) -> None:
        """Add the n-grams of one length, token ids (n, length), in the order of a trie."""
        size, parents = len(self.ids), np.zeros(len(ids), np.int64)
        trie = SuffixTrie(np.concatenate(self.keys), size) if self.keys else None
        for column in ids[:, :-1].T:
            assert trie is not None
            parents = trie.find(parents, column)
            if (parents < 0).any():
                raise ValueError(f"an n-gram of {ids.shape[1]} tokens begins with one that is missing.")
        keys = parents * size + ids[:, -1]
        order = np.argsort(keys)
        if (np.diff(keys[order]) == 0).any():
            raise ValueError("an n-gram is there twice.")
        self.keys.append(keys[order])
        self.log_probs.append(log_probs[order])
        self.back_offs.append(back_offs[order])

    def _add_unknown(self) -> None:
        """Add `<unk>` with the probability of the rarest token, and recompute keys for the larger vocabulary."""
        size = len(self.ids)
        self.ids[UNKNOWN] = size
        old = np.concatenate(self.keys)
        parents, tokens = old // size, old % size
        parents[size:] += parents[size:] > size
        level = parents * (size + 1) + tokens
        self.keys = [level[:size], np.array([size]), level[size:]]
        rarest = self.log_probs[1][[index for word, index in self.ids.items() if word not in (START, UNKNOWN)]].min()
        self.log_probs.insert(2, np.array([rarest]))
        self.back_offs.insert(2, np.zeros(1))


def write(model: NGramModel, file: IO[str]) -> None:
    """
    Write an ARPA file.

    Args:
        model: the n-gram model.
        file: text file, opened for writing in UTF-8.
    """
    file.write("\\data\\\n")
    file.writelines(f"ngram {length}={count}\n" for length, count in enumerate(model.counts, start=1))
    names, levels = model.vocabulary, model.trie.levels
    before: list[str] = [""]  # the n-grams of the previous level, each followed by a space
    for length, (start, stop) in enumerate(itertools.pairwise(levels[1:]), start=1):
        file.write(f"\n\\{length}-grams:\n")
        parents = (model.trie.parents[start - 1 : stop - 1] - levels[length - 1]).tolist()
        tokens = model.trie.tokens[start - 1 : stop - 1].tolist()
        log_probs, back_offs = ((a[start:stop] / _LOG_10).tolist() for a in (model.log_probs, model.back_offs))
        ngrams = [before[parent] + names[token] for parent, token in zip(parents, tokens, strict=True)]
        for ngram, log_prob, back_off in zip(ngrams, log_probs, back_offs, strict=True):
            log_prob = _NEVER if ngram == START else log_prob
            file.write(f"{log_prob:.7g}\t{ngram}" + (f"\t{back_off:.7g}\n" if length < model.order else "\n"))
        before = [f"{ngram} " for ngram in ngrams]
    file.write("\n\\end\\\n")


__all__ = ["STOP", "read", "write"]

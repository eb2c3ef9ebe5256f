"""Train n-gram models with modified Kneser-Ney smoothing and entropy pruning, in NumPy."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from .ngram import START, STOP, UNKNOWN, NGramModel
from .suffix_trie import SuffixTrie

_UNKNOWN, _START, _STOP = range(3)  # ids


@dataclass(frozen=True)
class _Level:
    """
    The distinct n-grams of one length in a text; those of length 1 are the whole vocabulary.

    Args:
        parents: (n,) index, in the level below, of the n-gram without its last token; ascending.
        tokens: (n,) last token; ascending for equal parents.
        suffixes: (n,) index, in the level below, of the n-gram without its first token.
        occurrences: (n,) number of occurrences in the text.
        counts: (n,) count used for the probability: occurrences for the longest n-grams and those that begin with
            `<s>`, for others the number of different tokens before the n-gram.
    """

    parents: np.ndarray
    tokens: np.ndarray
    suffixes: np.ndarray
    occurrences: np.ndarray
    counts: np.ndarray


@dataclass(frozen=True)
class _Smoothed:
    """Probabilities of the n-grams of a [`_Level`], and the lower-order probabilities from the level below."""

    level: _Level
    probs: np.ndarray
    lower: np.ndarray


def train(sentences: Iterable[Sequence[str]], order: int = 4, prune: float = 0.0) -> NGramModel:
    """
    Train an n-gram model with interpolated modified Kneser-Ney smoothing, as KenLM's lmplz does (Heafield et al. 2013).

    The smoothing is that of Chen and Goodman (1999). n-grams are pruned by relative entropy (Stolcke 1998), with
    context frequencies from the text, because Kneser-Ney's lower orders are not frequencies (Chelba et al. 2010).

    Args:
        sentences: tokens of each sentence; empty sentences are ignored.
        order: length of the longest n-grams, 2 or more.
        prune: pruning threshold, such as 1e-7: an n-gram is removed if the perplexity then rises by less than this
            fraction; 0 keeps all.

    Raises:
        ValueError: if there is no text, or `order` or `prune` is out of range.
    """
    if order < 2:
        raise ValueError(f"the order of a language model is 2 or more, not {order}.")
    if not 0 <= prune < 1:
        raise ValueError(f"the threshold of pruning is from 0 to 1, such as 1e-7, not {prune}.")
    vocabulary, text = _encode(sentences)
    levels = _smooth(_count(text, len(vocabulary), order))
    kept = _kept(levels, len(text), prune)
    return _assemble(vocabulary, levels, kept)


def _encode(sentences: Iterable[Sequence[str]]) -> tuple[list[str], np.ndarray]:
    """Return the vocabulary, and the concatenated ids of all sentences, each between `<s>` and `</s>`."""
    ids = {UNKNOWN: _UNKNOWN, START: _START, STOP: _STOP}
    text: list[int] = []
    for tokens in sentences:
        if tokens:
            text.append(_START)
            text.extend(ids.setdefault(token, len(ids)) for token in tokens)
            text.append(_STOP)
    if not text:
        raise ValueError("there is no text to train a language model on.")
    names = sorted(ids, key=lambda token: (min(ids[token], _STOP + 1), token))  # for any order of the sentences
    numbers = np.empty(len(ids), np.int64)
    numbers[[ids[name] for name in names]] = np.arange(len(ids))
    return names, numbers[text]


def _count(text: np.ndarray, size: int, order: int) -> list[_Level]:
    starts = np.flatnonzero(text == _START)
    places = np.arange(len(text)) - np.repeat(starts, np.diff(np.append(starts, len(text))))  # within sentences
    none = np.zeros(size, np.int64)
    occurrences = np.bincount(text, minlength=size)
    levels = [_Level(none, np.arange(size), none, occurrences, occurrences)]
    numbers = text.copy()  # index of the n-gram that ends at each position of the text
    for length in range(2, order + 1):
        ends = np.flatnonzero(places >= length - 1)
        keys, first, inverse, occurrences = np.unique(
            numbers[ends - 1] * size + text[ends], return_index=True, return_inverse=True, return_counts=True
        )
        levels.append(_Level(keys // size, keys % size, numbers[ends[first]], occurrences, occurrences))
        numbers[ends] = inverse
    at_start = np.arange(size) == _START
    for index, (level, above) in enumerate(pairwise(levels)):
        varied = np.bincount(above.suffixes, minlength=len(level.tokens))
        counts = np.where(at_start, level.occurrences, varied)  # no token precedes the start of a sentence
        levels[index] = _Level(level.parents, level.tokens, level.suffixes, level.occurrences, counts)
        at_start = at_start[above.parents]
    return levels


def _smooth(levels: list[_Level]) -> list[_Smoothed]:
    """Compute interpolated probabilities, from the shortest n-grams to the longest."""
    counts = levels[0].counts.copy()
    counts[_START] = 0  # never predicted
    taken = _discounts(counts)[np.minimum(counts, 3)]
    lower = np.full(len(counts), 1 / (len(counts) - 1))
    probs = (counts - taken + taken.sum() * lower) / counts.sum()
    smoothed = [_Smoothed(levels[0], probs, lower)]
    for level in levels[1:]:
        contexts = len(probs)
        taken = _discounts(level.counts)[np.minimum(level.counts, 3)]
        totals = np.bincount(level.parents, level.counts, contexts)[level.parents]
        left_over = np.bincount(level.parents, taken, contexts)[level.parents]
        lower = probs[level.suffixes]
        probs = (level.counts - taken + left_over * lower) / totals
        smoothed.append(_Smoothed(level, probs, lower))
    return smoothed


def _discounts(counts: np.ndarray) -> np.ndarray:
    """(4,) discounts for counts of 0, 1, 2, and 3 or more; lmplz's `--discount_fallback` if they are not defined."""
    n = np.bincount(np.minimum(counts, 5), minlength=6)[1:5].astype(float)
    if n.all():
        y = n[0] / (n[0] + 2 * n[1])
        discounts = np.array([0.0, *(i - (i + 1) * y * n[i] / n[i - 1] for i in (1, 2, 3))])
        if (discounts >= 0).all():
            return discounts
    return np.array([0.0, 0.5, 1.0, 1.5])


def _kept(levels: list[_Smoothed], length: int, threshold: float) -> list[np.ndarray]:
    """(n,) for each level, whether to keep an n-gram: if its loss is large, or a longer one begins or ends with it."""
    kept = [np.ones(len(level.probs), bool) for level in levels]
    for index in range(len(levels) - 1, 0, -1) if threshold else ():
        level, below = levels[index].level, levels[index - 1].level
        begun = np.zeros(len(level.tokens), bool)
        if index + 1 < len(levels):
            above = levels[index + 1].level
            begun[above.parents[kept[index + 1]]] = True
            begun[above.suffixes[kept[index + 1]]] = True  # KenLM needs these to look up longer ones
        loss = _losses(levels[index], below.occurrences / length)
        kept[index] = begun | (np.expm1(loss) >= threshold)
    return kept


def _losses(smoothed: _Smoothed, contexts: np.ndarray) -> np.ndarray:
    """
    Relative entropy between the models with and without an n-gram, equation (6) of Stolcke (1998), for each n-gram.

    Args:
        smoothed: the n-grams.
        contexts: (m,) probabilities of the contexts, the n-grams without their last token.
    """
    parents, probs, lower = smoothed.level.parents, smoothed.probs, smoothed.lower
    free = np.maximum(1 - np.bincount(parents, probs, len(contexts)), 1e-12)
    free_lower = np.maximum(1 - np.bincount(parents, lower, len(contexts)), 1e-12)
    weight = np.log(free / free_lower)[parents]
    weight_without = np.log((free[parents] + probs) / (free_lower[parents] + lower))
    change = probs * (np.log(lower) + weight_without - np.log(probs)) + free[parents] * (weight_without - weight)
    losses: np.ndarray = -contexts[parents] * change
    return losses


def _assemble(vocabulary: list[str], levels: list[_Smoothed], kept: list[np.ndarray]) -> NGramModel:
    """Make the model of the kept n-grams, with back-off weights that make all sums 1."""
    size, offset = len(vocabulary), 1
    keys: list[np.ndarray] = []
    nodes = np.zeros(1, np.int64)  # of the level below; wrong for removed n-grams, which are never used
    for smoothed, mask in zip(levels, kept, strict=True):
        keys.append(nodes[smoothed.level.parents[mask]] * size + smoothed.level.tokens[mask])
        nodes = offset - 1 + np.cumsum(mask)
        offset += int(mask.sum())
    trie = SuffixTrie(np.concatenate(keys), size)
    probs = np.concatenate([[1.0], *(level.probs[mask] for level, mask in zip(levels, kept, strict=True))])
    probs[1 + _START] = 1.0  # never predicted; 1 avoids the logarithm of 0
    model = NGramModel(vocabulary, trie, np.log(probs).astype(np.float32), np.zeros(len(probs), np.float32))
    for start, stop in pairwise(trie.levels[2:]):
        parents, tokens = trie.parents[start - 1 : stop - 1], trie.tokens[start - 1 : stop - 1]
        lower = np.exp(model.score(trie.suffixes[parents], tokens)[0].astype(np.float64))
        contexts = slice(parents[0], parents[-1] + 1)
        own = np.bincount(parents - parents[0], probs[start:stop])
        others = np.bincount(parents - parents[0], lower)
        has = own > 0
        weights = np.maximum(1 - own[has], 1e-9) / np.maximum(1 - others[has], 1e-9)
        model.back_offs[contexts][has] = np.log(weights)
    return model


__all__ = ["train"]

"""CTC prefix beam search with a language model and hot words, vectorised over the beam; plain NumPy."""

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass

import numpy as np

from ..decoding_citrinet import CTCToken, collapse
from .hot_words import HotWords
from .model import LanguageModel
from .spelling import is_marker, spell

BEAM_SIZE = 32
WEIGHT, WORD_BONUS = 0.4, 1.5  # for language models without settings
HOT_WORD_BOOST = 2.5
# Tokens up to e**7 times less likely than the best of their frame are tried, and prefixes up to e**10 times less likely
# than the best are kept: with 12 and 20, CER differs by less than 0.1 points.
_TOKEN_MARGIN, _PREFIX_MARGIN = 7.0, 10.0
_NEVER = np.float32(-1e30)  # log-probability of the impossible; infinities would give NaN
_HASH_BASE = np.uint64(0x9E3779B97F4A7C15)


@dataclass(frozen=True)
class Hypothesis:
    """
    One hypothesis for a segment.

    Args:
        tokens: its tokens, with the frames of the most likely path.
        score: its natural log-probability plus the scores of language model, word bonus and hot words.
    """

    tokens: list[CTCToken]
    score: float


@dataclass(frozen=True)
class _Beam:
    """
    The prefixes in the beam; all arrays have shape (n,).

    Args:
        sum_blank, sum_token: natural log-probabilities of all paths that give the prefix and end in a blank or in its
            last token.
        best_blank, best_token: log-probabilities of the most likely of these paths.
        last: last token, -1 for the empty prefix.
        hashes: hashes of the tokens, to recognise equal prefixes.
        states: states of the language model.
        hot: states of the hot words.
        added: scores added by language model and hot words.
    """

    sum_blank: np.ndarray
    sum_token: np.ndarray
    best_blank: np.ndarray
    best_token: np.ndarray
    last: np.ndarray
    hashes: np.ndarray
    states: np.ndarray
    hot: np.ndarray
    added: np.ndarray

    @property
    def scores(self) -> np.ndarray:
        scores: np.ndarray = np.logaddexp(self.sum_blank, self.sum_token) + self.added
        return scores

    def joined(self, kept: np.ndarray, other: "_Beam", added: np.ndarray) -> "_Beam":
        """Join the prefixes `kept` of this beam and `added` of another."""
        mine, others = vars(self).values(), vars(other).values()
        return _Beam(*(np.concatenate([a[kept], b[added]]) for a, b in zip(mine, others, strict=True)))


# Back-pointers (2, n) of the best path of each prefix, if it ends in a blank and if it ends in a token: index of the
# previous prefix, times two, plus one if the path ended in a token there.
_Origins = np.ndarray


class BeamSearchDecoder:
    """
    CTC prefix beam search (Graves 2012; Hannun et al. 2014) with a language model and hot words.

    ```python
    >>> model = read_language_model("lm.arpa")
    >>> recognizer.decoder = BeamSearchDecoder(recognizer.pieces, model, hot_words=["汪环"])
    ```

    The probability of a text is the sum over its paths; its times are those of its most likely path. Entity markers and
    tags that are not in the language model's vocabulary have no cost and are not part of its context; those that are in
    it are scored as its tokens.

    Args:
        pieces: tokens without the blank, which follows them: `recognizer.pieces`.
        language_model: the language model, or `None` for hot words only.
        weight: weight of the language model's log-probabilities; defaults to that in its settings, or 0.4.
        word_bonus: score added for each of its tokens, because a language model alone favours short texts; defaults to
            that in its settings, or 1.5.
        hot_words: words to prefer.
        hot_word_boost: score added for each character of a hot word.
        beam_size: number of prefixes to keep.
        alternatives: number of hypotheses in results.

    Raises:
        ValueError: if none of the pieces is in the language model's vocabulary.
    """

    def __init__(
        self,
        pieces: Sequence[str],
        language_model: LanguageModel | None = None,
        *,
        weight: float | None = None,
        word_bonus: float | None = None,
        hot_words: Sequence[str] = (),
        hot_word_boost: float = HOT_WORD_BOOST,
        beam_size: int = BEAM_SIZE,
        alternatives: int = 1,
    ):
        self.blank = len(pieces)
        self.beam_size = beam_size
        self.alternatives = alternatives
        self.language_model = language_model
        self.weight = self.word_bonus = 0.0
        if language_model is not None:
            settings = language_model.settings
            self.weight = settings.get("weight", WEIGHT) if weight is None else weight
            self.word_bonus = settings.get("word_bonus", WORD_BONUS) if word_bonus is None else word_bonus
            self._units = _units(pieces, language_model)
        self.pieces, self.hot_word_boost = pieces, hot_word_boost
        self._prefer(hot_words)

    def with_hot_words(self, words: Sequence[str]) -> "BeamSearchDecoder":
        """Return a copy of this decoder with other hot words in place of its own."""
        other = copy(self)
        other._prefer(words)
        return other

    def _prefer(self, words: Sequence[str]) -> None:
        self.hot_words = HotWords(words, self.pieces, self.hot_word_boost) if words else None
        # Largest boost of each token: tokens less likely by this much are still tried.
        self._hopes = np.zeros(len(self.pieces), np.float32)
        if self.hot_words is not None:
            self._hopes[self.hot_words.pieces] = max(self.hot_word_boost, 0.0)

    def __call__(self, log_probs: np.ndarray) -> list[CTCToken]:
        """Decode one segment, see [`Decoder`]."""
        return self.n_best(log_probs, 1)[0].tokens

    def n_best(self, log_probs: np.ndarray, n: int) -> list[Hypothesis]:
        """
        Find the most likely hypotheses for one segment.

        Args:
            log_probs: (T', V) natural log-probabilities; the blank is the last token.
            n: largest number of hypotheses; there are never more than `beam_size`.

        Returns:
            Different hypotheses, most likely first; at least one.
        """
        beam = self._start()
        trace: list[tuple[np.ndarray, _Origins]] = []
        for row, tokens in zip(log_probs, self._candidates(log_probs), strict=True):
            beam, origins = self._step(beam, row, tokens)
            trace.append((beam.last, origins))
        scores = self._final_scores(beam)
        best = np.argsort(-scores, kind="stable")[:n]
        in_token = beam.best_token > beam.best_blank
        found = self._readings(trace, best, in_token[best])
        return [Hypothesis(tokens, float(score)) for tokens, score in zip(found, scores[best], strict=True)]

    def _candidates(self, log_probs: np.ndarray) -> list[np.ndarray]:
        """Select the tokens to try in each frame."""
        least = log_probs.max(axis=1, keepdims=True, initial=_NEVER) - _TOKEN_MARGIN
        frames, tokens = np.nonzero(log_probs[:, : self.blank] + self._hopes > least)
        return np.split(tokens, np.searchsorted(frames, np.arange(1, len(log_probs))))[: len(log_probs)]

    def _start(self) -> _Beam:
        zero, never = np.zeros(1, np.float32), np.full(1, _NEVER)
        first = 0 if self.language_model is None else self.language_model.begin()
        none = np.zeros(1, np.int64)
        return _Beam(zero, never, zero, never, none - 1, none.astype(np.uint64), none + first, none, zero)

    def _step(self, beam: _Beam, row: np.ndarray, tokens: np.ndarray) -> tuple[_Beam, _Origins]:
        """Advance by one frame with log-probabilities (V,), trying the given tokens."""
        stay, origins = self._stay(beam, row)
        if not len(tokens):
            return stay, origins
        parents, chosen = self._promising(beam, row, tokens)
        longer, longer_origins = self._longer(beam, row, parents, chosen)
        fresh = _merge(stay, origins[1], longer, longer_origins)
        longer = self._scored(longer, fresh)
        scores = np.concatenate([stay.scores, longer.scores])
        kept = np.flatnonzero(scores > scores.max() - _PREFIX_MARGIN)
        if len(kept) > self.beam_size:
            kept = np.sort(kept[np.argpartition(-scores[kept], self.beam_size)[: self.beam_size]])
        old, new = kept[kept < len(stay.last)], kept[kept >= len(stay.last)] - len(stay.last)
        from_new = np.stack([np.zeros(len(new), np.int64), longer_origins[fresh][new]])
        return stay.joined(old, longer, new), np.concatenate([origins[:, old], from_new], axis=1)

    def _stay(self, beam: _Beam, row: np.ndarray) -> tuple[_Beam, _Origins]:
        """Extend the paths of the prefixes by a blank or by a repeat of the last token."""
        blank = max(row[self.blank], _NEVER)
        repeated = np.where(beam.last < 0, _NEVER, np.maximum(row[beam.last], _NEVER))
        in_token = beam.best_token > beam.best_blank
        slots = 2 * np.arange(len(beam.last))
        stay = _Beam(
            np.logaddexp(beam.sum_blank, beam.sum_token) + blank,
            beam.sum_token + repeated,
            np.maximum(beam.best_blank, beam.best_token) + blank,
            beam.best_token + repeated,
            *(beam.last, beam.hashes, beam.states, beam.hot, beam.added),
        )
        return stay, np.stack([slots + in_token, slots + 1])

    def _promising(self, beam: _Beam, row: np.ndarray, tokens: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Select the pairs of prefixes and tokens to extend them with."""
        prefixes, hopes = beam.scores, row[tokens] + self._hopes[tokens]
        least = prefixes.max() + row.max() - _PREFIX_MARGIN - self.word_bonus
        parents, columns = np.nonzero(prefixes[:, None] + hopes > least)
        return parents, tokens[columns]

    def _longer(
        self, beam: _Beam, row: np.ndarray, parents: np.ndarray, tokens: np.ndarray
    ) -> tuple[_Beam, np.ndarray]:
        """Extend prefixes by one token, without its scores; also return the back-pointers (n,) of their best paths."""
        again = beam.last[parents] == tokens  # a repeated token needs a blank before it
        sums = np.where(again, beam.sum_blank[parents], np.logaddexp(beam.sum_blank, beam.sum_token)[parents])
        from_token = ~again & (beam.best_token > beam.best_blank)[parents]
        bests = np.where(from_token, beam.best_token[parents], beam.best_blank[parents])
        never = np.full(len(parents), _NEVER)
        longer = _Beam(
            *(never, sums + row[tokens], never, bests + row[tokens], tokens),
            beam.hashes[parents] * _HASH_BASE + (tokens + 1).astype(np.uint64),
            *(beam.states[parents], beam.hot[parents], beam.added[parents]),
        )
        return longer, 2 * parents + from_token

    def _scored(self, longer: _Beam, fresh: np.ndarray) -> _Beam:
        """Return the prefixes that are new, with language model and hot word scores of their last token."""
        fields = {name: array[fresh] for name, array in vars(longer).items()}
        last, states, added = fields["last"], fields["states"], fields["added"]
        if self.language_model is not None:
            for unit in self._units[last].T:
                scored = np.flatnonzero(unit >= 0)
                scores, states[scored] = self.language_model.score(states[scored], unit[scored])
                added[scored] += self.weight * scores + self.word_bonus
        if self.hot_words is not None:
            gains, fields["hot"] = self.hot_words.advance(fields["hot"], last)
            added += gains
        return _Beam(**fields)

    def _final_scores(self, beam: _Beam) -> np.ndarray:
        scores = beam.scores
        if self.language_model is not None:
            stop = np.full(len(scores), self.language_model.stop)
            scores = scores + self.weight * self.language_model.score(beam.states, stop)[0]
        if self.hot_words is not None:
            scores = scores - self.hot_words.unfinished(beam.hot)
        return scores

    def _readings(
        self, trace: list[tuple[np.ndarray, _Origins]], slots: np.ndarray, in_token: np.ndarray
    ) -> list[list[CTCToken]]:
        """Trace back the best paths that end at prefixes (n,), and return their tokens."""
        paths = np.empty((len(slots), len(trace)), np.int64)
        for frame in reversed(range(len(trace))):
            last, origins = trace[frame]
            paths[:, frame] = np.where(in_token, last[slots], self.blank)
            came_from = origins[in_token.astype(np.int64), slots]
            slots, in_token = came_from // 2, came_from % 2 == 1
        return [collapse(path, self.blank) for path in paths.tolist()]


def _merge(stay: _Beam, origins: np.ndarray, longer: _Beam, longer_origins: np.ndarray) -> np.ndarray:
    """Merge extended prefixes into equal ones that stayed; return the indices of the new ones."""
    order = np.argsort(stay.hashes)
    places = np.searchsorted(stay.hashes, longer.hashes, sorter=order)
    slots = order[np.minimum(places, len(order) - 1)]
    same = stay.hashes[slots] == longer.hashes
    into = slots[same]  # each once: a prefix and a token give one extended prefix
    stay.sum_token[into] = np.logaddexp(stay.sum_token[into], longer.sum_token[same])
    better = longer.best_token[same] > stay.best_token[into]
    stay.best_token[into[better]] = longer.best_token[same][better]
    origins[into[better]] = longer_origins[same][better]
    return np.flatnonzero(~same)


def _units(pieces: Sequence[str], model: LanguageModel) -> np.ndarray:
    """Return the language model's tokens for each piece, (pieces, L)."""
    units = spell(pieces, model.ids, model.ids["<unk>"])
    known = (units >= 0) & (units != model.ids["<unk>"])
    if not known[[not is_marker(piece) for piece in pieces]].any():
        raise ValueError(
            "the language model knows none of the tokens of this model: train one on its characters or its pieces, "
            "`citrinet lm train`."
        )
    return units


__all__ = ["BeamSearchDecoder", "Hypothesis"]

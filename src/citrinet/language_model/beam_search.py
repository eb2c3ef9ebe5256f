"""CTC prefix beam search with an n-gram model and hot words, vectorised over the beam; plain NumPy."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..decoding_citrinet import CTCToken, collapse

_NEVER = np.float32(-1e30)
_HASH = np.uint64(0x9E3779B97F4A7C15)  # an odd number; hashes of prefixes are numbers to this base, modulo 2**64


@dataclass(frozen=True)
class Hypothesis:
    """
    One reading of a recording.

    Args:
        tokens: what was written, with the frames of the likeliest way to write it.
        score: natural logarithm of its probability, plus what the language model and hot words add.
    """

    tokens: list[CTCToken]
    score: float


@dataclass
class _Beam:
    """
    The prefixes that are followed, (n,) each.

    Probabilities are natural logarithms. `*_blank` are of paths that end in the blank, `*_token` of those that end in
    the prefix's last token; `sum_*` of all such paths, `best_*` of the likeliest.
    """

    sum_blank: np.ndarray
    sum_token: np.ndarray
    best_blank: np.ndarray
    best_token: np.ndarray
    last: np.ndarray
    hashes: np.ndarray
    states: np.ndarray
    words: np.ndarray
    opened: np.ndarray
    extra: np.ndarray

    def take(self, slots: np.ndarray) -> "_Beam":
        return _Beam(*(array[slots] for array in vars(self).values()))


class BeamSearchDecoder:
    def __init__(
        self,
        pieces: Sequence[str],
        language_model: Any = None,
        *,
        weight: float = 0.5,
        word_bonus: float = 0.5,
        hot_words: Any = None,
        beam_size: int = 16,
        token_threshold: float = 9.0,
        beam_threshold: float = 14.0,
        candidates: int = 24,
        use_stop: bool = True,
        grammar: bool = False,
    ):
        self.pieces = list(pieces)
        self.blank = len(self.pieces)
        self.model, self.weight, self.bonus = language_model, weight, word_bonus
        self.size = beam_size
        self.token_threshold, self.beam_threshold, self.candidates = token_threshold, beam_threshold, candidates
        self.use_stop = use_stop
        self.grammar = grammar
        self.kinds = np.array([1 if p.startswith('ENTITY_') else 2 if p == 'END' else 0 for p in pieces])
        ids = language_model.ids
        self.units = np.full(len(self.pieces), -1)
        for i, p in enumerate(self.pieces):
            if p in ids: self.units[i] = ids[p]
            elif len(p) == 1: self.units[i] = 0
        self.units[self.pieces.index('<unk>')] = 0

    def __call__(self, log_probs: np.ndarray) -> list[CTCToken]:
        return self.n_best(log_probs, 1)[0].tokens

    def n_best(self, log_probs: np.ndarray, n: int) -> list[Hypothesis]:
        frames = len(log_probs)
        best = log_probs.max(axis=1)
        found_frames, found_tokens = np.nonzero(log_probs[:, : self.blank] > (best - self.token_threshold)[:, None])
        bounds = np.searchsorted(found_frames, np.arange(frames + 1))
        beam = self._start()
        blanks = log_probs[:, self.blank]
        trace = []
        for frame in range(frames):
            tokens = found_tokens[bounds[frame] : bounds[frame + 1]]
            row = log_probs[frame]
            if len(tokens) > self.candidates:
                tokens = tokens[np.argpartition(row[tokens], -self.candidates)[-self.candidates :]]
            beam, back = self._step(beam, row, tokens)
            trace.append((beam.last, back))
        score = np.logaddexp(beam.sum_blank, beam.sum_token) + beam.extra
        if self.use_stop:
            score = score + self.weight * self.model.score(beam.states, np.full(len(score), self.model.stop))[0]
        order = np.argsort(-score, kind="stable")[:n]
        return [Hypothesis(self._tokens(trace, int(slot), bool(beam.best_token[slot] > beam.best_blank[slot])), float(score[slot])) for slot in order]

    def _start(self):
        never, zero = np.array([_NEVER]), np.zeros(1, np.float32)
        return _Beam(zero, never, zero, never, np.array([-1]), np.zeros(1, np.uint64), np.array([self.model.start]), np.zeros(1, np.int64), np.zeros(1, bool), zero)

    def _step(self, beam: _Beam, row: np.ndarray, tokens: np.ndarray):
        count = len(beam.last)
        slots = np.arange(count)
        total = np.logaddexp(beam.sum_blank, beam.sum_token)
        ends_in_token = beam.best_token > beam.best_blank
        likeliest = np.maximum(beam.best_token, beam.best_blank)
        repeat = np.where(beam.last >= 0, row[beam.last], _NEVER)
        stay = _Beam(total + row[self.blank], beam.sum_token + repeat, likeliest + row[self.blank], beam.best_token + repeat, beam.last, beam.hashes, beam.states, beam.words, beam.opened, beam.extra)
        from_blank = slots * 2 + ends_in_token
        from_token = slots * 2 + 1
        if not len(tokens):
            return stay, np.stack([from_blank, from_token])
        again = beam.last[:, None] == tokens
        sums = np.where(again, beam.sum_blank[:, None], total[:, None]) + row[tokens]
        rank = sums + beam.extra[:, None]
        if self.grammar:
            kind = self.kinds[tokens]
            rank = np.where((kind == 1) & beam.opened[:, None] | (kind == 2) & ~beam.opened[:, None], _NEVER, rank)
        parents, columns = np.nonzero(rank > (total+beam.extra).max() + row.max() - self.beam_threshold)
        chosen = tokens[columns]
        sums = sums[parents, columns]
        again = again[parents, columns]
        bests = np.where(again, beam.best_blank[parents], likeliest[parents]) + row[chosen]
        back = parents * 2 + (ends_in_token[parents] & ~again)
        hashes = beam.hashes[parents] * _HASH + (chosen + 1).astype(np.uint64)
        order = np.argsort(beam.hashes)
        at = order[np.minimum(np.searchsorted(beam.hashes, hashes, sorter=order), count - 1)]
        same = beam.hashes[at] == hashes
        if same.any():
            ats = at[same]
            stay.sum_token[ats] = np.logaddexp(stay.sum_token[ats], sums[same])
            better = bests[same] > stay.best_token[ats]
            stay.best_token[ats[better]] = bests[same][better]
            from_token = from_token.copy()
            from_token[ats[better]] = back[same][better]
            new = ~same
            parents, chosen, sums, bests, back, hashes = parents[new], chosen[new], sums[new], bests[new], back[new], hashes[new]
        units = self.units[chosen]
        extra = beam.extra[parents]
        states = beam.states[parents]
        scored = np.flatnonzero(units >= 0)
        if len(scored):
            lm, states[scored] = self.model.score(states[scored], units[scored])
            extra[scored] += self.weight * lm + self.bonus
        scores = np.concatenate([np.logaddexp(stay.sum_blank, stay.sum_token) + stay.extra, sums + extra])
        kept = np.flatnonzero(scores > scores.max() - self.beam_threshold)
        if len(kept) > self.size:
            kept = kept[np.argpartition(scores[kept], -self.size)[-self.size :]]
            kept.sort()
        old = kept[kept < count]
        new = kept[len(old):] - count
        never = np.full(len(new), _NEVER)
        cat = np.concatenate
        beam = _Beam(
            cat([stay.sum_blank[old], never]), cat([stay.sum_token[old], sums[new]]),
            cat([stay.best_blank[old], never]), cat([stay.best_token[old], bests[new]]),
            cat([stay.last[old], chosen[new]]), cat([stay.hashes[old], hashes[new]]),
            cat([stay.states[old], states[new]]), cat([stay.words[old], np.zeros(len(new), np.int64)]),
            cat([stay.opened[old], np.where(self.kinds[chosen[new]] == 0, beam.opened[parents[new]], self.kinds[chosen[new]] == 1)]), cat([stay.extra[old], extra[new]]))
        return beam, np.stack([cat([from_blank[old], np.zeros(len(new), np.int64)]), cat([from_token[old], back[new]])])

    def _tokens(self, trace, slot: int, in_token: bool):
        path = []
        for last, back in reversed(trace):
            path.append(int(last[slot]) if in_token else self.blank)
            slot, in_token = divmod(int(back[int(in_token), slot]), 2)
        return collapse(path[::-1], self.blank)

"""Which utterances are trained on next, what happens to them, and the tensors that become of that on the device."""

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from citrinet import CitrinetFeatureExtractor

from .augmentation import EFFECTS, HOP, OFF, RATE, Augmenter, Changes, Numbers, child_formants, draw, voice
from .data import CATEGORIES, REAL, SPLICED, SYNTHETIC, UNKNOWN, Corpus
from .features import FrontEnd
from .schedule import Schedule

CHUNK = 64  # batches that are planned together
SHARES = {SYNTHETIC: 0.84, REAL: 0.06, SPLICED: 0.10}  # of the seconds of a batch
JOINED = 0.10  # of the utterances are joined to another
LONGEST_PAIR = 14 * RATE
FRAMES = (32, 2_000)  # of an utterance, at least and at most


@dataclass
class Plan:
    """
    A batch before it is computed.

    Args:
        numbers: name -> (B,): those of [`Changes`]; `start1`, `length1`, `start2` and `length2` of the recordings in
            `Corpus.audio`; the same of `token_` and `syllable_` in their sequences; the class of each category of tags.
        rows: effect -> utterances that have it.
    """

    numbers: Numbers
    rows: dict[str, NDArray[np.int64]]

    def __len__(self) -> int:
        return len(self.numbers["frames"])

    @property
    def seconds(self) -> float:
        """Of speech in it, padding aside."""
        return float(self.numbers["frames"].sum()) * HOP / RATE


class Planner:
    """
    Draws utterances and what happens to them, and cuts them into batches of similar length.

    What it draws depends on the seed, on how much it has drawn before (`state`) and on the progress that it is told.

    Args:
        corpus: all speech.
        schedule: how strong the augmentation is, and how long the utterances.
        batch_seconds: of speech in a batch, padding included.
        ratio: feature frames for each frame of the network's output.
        seed: of all chance.
    """

    def __init__(self, corpus: Corpus, schedule: Schedule, batch_seconds: float, ratio: int, seed: int = 0):
        self.corpus, self.schedule, self.batch_seconds = corpus, schedule, batch_seconds
        self.ratio, self.seed = ratio, seed
        members = {group: corpus.members(group) for group in SHARES}
        # Sorted by length: the first part of them are the short ones.
        self.members = {g: m[np.argsort(corpus.lengths[m], kind="stable")] for g, m in members.items() if len(m)}
        self.state = {"chunks": 0} | dict.fromkeys(self.members, 0)  # and how many of each group were drawn

    def chunk(self, progress: float) -> list[Plan]:
        """The next batches; `progress` through the training from 0 to 1."""
        rng = np.random.default_rng([self.seed, self.state["chunks"]])
        self.state["chunks"] += 1
        corpus, early = self.corpus, self.schedule.is_early(progress)
        first = rng.permutation(np.concatenate([self._draw(group, progress, rng) for group in self.members]))
        second = rng.permutation(first)
        joined = corpus.lengths[first] + corpus.lengths[second] < LONGEST_PAIR
        joined &= (corpus.children[first] == corpus.children[second]) & (rng.random(len(first)) < JOINED) & (not early)
        changes = draw(
            rng,
            corpus.lengths[first],
            np.where(joined, corpus.lengths[second], 0),
            corpus.children[first],
            self.schedule.strength(progress),
            self.schedule.clean(progress),
        )
        needed = corpus.frames[first] + np.where(joined, corpus.frames[second] + 1, 0)
        plans = [self._plan(at, first, second, joined, changes) for at in self._batches(changes, needed, rng)]
        if not plans:
            raise ValueError("no utterance fits into a batch: give batches more seconds, or longer speech.")
        rng.shuffle(plans)
        return plans

    def _draw(self, group: str, progress: float, rng: np.random.Generator) -> NDArray[np.int64]:
        """Utterances of a group: early the short ones, by chance; then each once before any comes again."""
        members = self.members[group]
        if self.schedule.is_early(progress):
            members = members[: max(1, int(len(members) * self.schedule.short(progress)))]
        seconds = 1.15 * self.corpus.lengths[members].mean() / RATE  # what is done to them makes them longer
        share = SHARES[group] / sum(SHARES[name] for name in self.members)
        count = max(1, int(CHUNK * self.batch_seconds * share / seconds))
        if self.schedule.is_early(progress):
            return rng.choice(members, count)
        place = np.arange(self.state[group], self.state[group] + count)
        self.state[group] += count
        passes = range(place[0] // len(members), place[-1] // len(members) + 1)
        number = list(SHARES).index(group)
        orders = [np.random.default_rng([self.seed, 1 + number, again]).permutation(members) for again in passes]
        return np.concatenate(orders)[place - passes[0] * len(members)]

    def _batches(
        self, changes: Changes, needed: NDArray[np.int64], rng: np.random.Generator
    ) -> Iterator[NDArray[np.int64]]:
        """Utterances of similar length whose frames, padded, make at most `batch_seconds`; a rest is left out."""
        frames, budget = changes.numbers["frames"], int(self.batch_seconds * RATE / HOP)
        fits = (-(-frames // self.ratio) > needed) & (frames >= FRAMES[0]) & (frames < min(FRAMES[1], budget + 1))
        good = np.flatnonzero(fits)
        good = good[np.argsort(frames[good] * rng.uniform(0.98, 1.0, len(good)), kind="stable")]
        start = 0
        while start < len(good):
            longest = np.maximum.accumulate(frames[good[start:]])
            room = longest * np.arange(1, len(longest) + 1) <= budget
            count = int(room.sum())
            stop = start + (count // 8 * 8 if count > 8 else count)
            if room.all() and start:
                return
            yield good[start:stop]
            start = stop

    def _plan(
        self,
        at: NDArray[np.int64],
        first: NDArray[np.int64],
        second: NDArray[np.int64],
        joined: NDArray[np.bool_],
        changes: Changes,
    ) -> Plan:
        numbers = {name: values[at] for name, values in changes.numbers.items()}
        numbers |= _places(self.corpus, first[at], second[at], joined[at])
        for category in CATEGORIES:  # a pair is two speakers; a changed voice still has its dialect
            unknown = joined[at] if category == "DIALECT" else joined[at] | ~changes.faithful[at]
            numbers[category] = np.where(unknown, UNKNOWN, numbers[category])
        return Plan(numbers, {name: np.flatnonzero(numbers[name] != OFF) for name in EFFECTS})


def plain_plan(corpus: Corpus, at: NDArray[np.int64]) -> Plan:
    """Utterances as they are, but that children are children: for validation."""
    child, zero = corpus.children[at], np.zeros(len(at), np.int64)
    numbers = voice(corpus.lengths[at], child, child_formants(child), np.ones(len(at)), zero, zero)
    return Plan(numbers | {"gap": zero} | _places(corpus, at, at, np.zeros(len(at), bool)), {})


def _places(corpus: Corpus, first: NDArray[np.int64], second: NDArray[np.int64], joined: NDArray[np.bool_]) -> Numbers:
    """Tags of the first of each pair, where recordings and labels begin, and how long they are: 0 for no second."""
    numbers: Numbers = {category: corpus.tags[first, column] for column, category in enumerate(CATEGORIES)}
    for prefix, (starts, lengths) in {
        "": (corpus.starts, corpus.lengths),
        "token_": (corpus.tokens.starts, corpus.tokens.lengths),
        "syllable_": (corpus.syllables.starts, corpus.syllables.lengths),
    }.items():
        numbers |= {f"{prefix}start1": starts[first], f"{prefix}length1": lengths[first]}
        numbers |= {f"{prefix}start2": starts[second], f"{prefix}length2": np.where(joined, lengths[second], 0)}
    return numbers


class PlanStream:
    """
    Plans one after the other, the next chunk drawn by a thread while one is trained on.

    Args:
        planner: draws them.
        state: of a stream that this one goes on from.
    """

    def __init__(self, planner: Planner, state: dict[str, Any] | None = None):
        self._planner, self._pool = planner, ThreadPoolExecutor(1)
        state = state or {"planner": dict(planner.state), "progress": 0.0, "next_progress": 0.0, "used": 0}
        planner.state = dict(state["planner"])
        self._before, self._progress = dict(planner.state), state["progress"]
        self._plans, self._used = planner.chunk(self._progress), state["used"]
        self._submit(state["next_progress"])

    def _submit(self, progress: float) -> None:
        self._next_before, self._next_progress = dict(self._planner.state), progress
        self._next: Future[list[Plan]] = self._pool.submit(self._planner.chunk, progress)

    def next(self, progress: float) -> Plan:
        """The next plan; a chunk that is begun now is followed by one for this progress."""
        if self._used == len(self._plans):
            self._plans, self._used = self._next.result(), 0
            self._before, self._progress = self._next_before, self._next_progress
            self._submit(progress)
        plan: Plan = self._plans[self._used]
        self._used += 1
        return plan

    def state_dict(self) -> dict[str, Any]:
        """What it takes to go on with the plan after the last."""
        return {
            "planner": self._before,
            "progress": self._progress,
            "next_progress": self._next_progress,
            "used": self._used,
        }

    def close(self) -> None:
        """Let the thread end."""
        self._pool.shutdown(wait=True, cancel_futures=True)


@dataclass
class Batch:
    """
    What the network is trained on.

    Args:
        features: (B, T, mels).
        mask: (B, T) bool.
        frames: (B,) of the features, on the CPU, where CTC's lengths belong.
        tokens, syllables: (B, L) labels; `token_lengths` and `syllable_lengths` (B,), on the CPU.
        tags: category -> (B,) classes.
    """

    features: torch.Tensor
    mask: torch.Tensor
    frames: torch.Tensor
    tokens: torch.Tensor
    token_lengths: torch.Tensor
    syllables: torch.Tensor
    syllable_lengths: torch.Tensor
    tags: dict[str, torch.Tensor]


class Loader:
    """
    From plans to batches, without waiting for the device.

    Args:
        corpus: all speech.
        extractor: whose features are computed.
    """

    def __init__(self, corpus: Corpus, extractor: CitrinetFeatureExtractor):
        self.corpus, self.device = corpus, corpus.audio.device
        self.augmenter, self.front_end = Augmenter(self.device), FrontEnd(extractor, self.device)

    def __call__(self, plan: Plan, augment: bool = True) -> Batch:
        """Compute a batch; without `augment` the voice alone is as the plan says."""
        numbers, rows = self._send(plan)
        size = -(-int(plan.numbers["length"].max()) // 4000) * 4000
        augmenter, audio = self.augmenter, self.corpus.audio
        waves = augmenter(audio, numbers, rows, size) if augment else augmenter.read(audio, numbers, size)
        longest = int(plan.numbers["frames"].max())
        features, mask = self.front_end(
            waves, numbers["length"], numbers["frames"], longest, numbers["hop"], numbers["warp"]
        )
        frames = torch.from_numpy(plan.numbers["frames"])
        tokens = self._labels("token_", self.corpus.tokens.flat, numbers, plan)
        syllables = self._labels("syllable_", self.corpus.syllables.flat, numbers, plan)
        return Batch(features, mask, frames, *tokens, *syllables, {name: numbers[name] for name in CATEGORIES})

    def _send(self, plan: Plan) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
        """Two copies to the device for all that there is."""
        whole = {name: values for name, values in plan.numbers.items() if values.dtype == np.int64} | plan.rows
        real = {name: values for name, values in plan.numbers.items() if values.dtype == np.float64}
        sent = torch.split(self._move(np.concatenate(list(whole.values()))), [len(part) for part in whole.values()])
        numbers = dict(zip(whole, sent, strict=True))
        rows = {name: numbers.pop(name) for name in plan.rows}
        values = self._move(np.stack(list(real.values())))
        numbers |= dict(zip(real, values.float(), strict=True))
        numbers["pitch"] = values[list(real).index("pitch")]  # places of samples take more than float32
        return numbers, rows

    def _move(self, array: NDArray[Any]) -> torch.Tensor:
        tensor = torch.from_numpy(array)
        return tensor.pin_memory().to(self.device, non_blocking=True) if self.device.type == "cuda" else tensor

    def _labels(
        self, prefix: str, flat: torch.Tensor, numbers: dict[str, torch.Tensor], plan: Plan
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """(B, L) labels of pairs, padded with any, and their lengths on the CPU."""
        lengths = plan.numbers[f"{prefix}length1"] + plan.numbers[f"{prefix}length2"]
        places = torch.arange(max(1, int(lengths.max())), device=self.device)
        start1, length1 = numbers[f"{prefix}start1"][:, None], numbers[f"{prefix}length1"][:, None]
        later = numbers[f"{prefix}start2"][:, None] + places - length1
        index = torch.where(places < length1, start1 + places, later)
        return flat[index.clamp(0, len(flat) - 1)], torch.from_numpy(lengths)

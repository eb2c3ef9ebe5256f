"""Plan batches of utterances and their augmentation, and compute their tensors on the device."""

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
SHARES = {SYNTHETIC: 0.84, REAL: 0.06, SPLICED: 0.10}  # of the seconds of speech
JOINED = 0.10  # fraction of utterances that are joined to another
LONGEST_PAIR = 14 * RATE
FRAMES = (32, 2_000)  # minimum and maximum of an utterance


@dataclass
class Plan:
    """
    A batch before it is computed.

    Args:
        numbers: name -> (B,): those of [`Changes`]; `start1`, `length1`, `start2` and `length2` of the recordings in
            `Corpus.audio`; the same with the prefixes `token_` and `syllable_` for the labels; the class of each tag
            category.
        rows: effect -> indices of the utterances that have it.
    """

    numbers: Numbers
    rows: dict[str, NDArray[np.int64]]

    def __len__(self) -> int:
        return len(self.numbers["frames"])

    @property
    def seconds(self) -> float:
        """Seconds of speech in the batch, without padding."""
        return float(self.numbers["frames"].sum()) * HOP / RATE


class Planner:
    """
    Draws utterances and their augmentation, and divides them into batches of similar length.

    Draws depend on the seed, on the number of earlier draws (`state`) and on the given progress.

    Args:
        corpus: all speech.
        schedule: strength of the augmentation, and length of utterances.
        batch_seconds: seconds of speech in a batch, including padding.
        ratio: feature frames for each output frame of the network.
        seed: random seed.
    """

    def __init__(self, corpus: Corpus, schedule: Schedule, batch_seconds: float, ratio: int, seed: int = 0):
        self.corpus, self.schedule, self.batch_seconds = corpus, schedule, batch_seconds
        self.ratio, self.seed = ratio, seed
        members = {group: corpus.members(group) for group in SHARES}
        # Sorted by length, so that the short ones come first.
        self.members = {g: m[np.argsort(corpus.lengths[m], kind="stable")] for g, m in members.items() if len(m)}
        self.state = {"chunks": 0} | dict.fromkeys(self.members, 0)  # and the number drawn from each group

    def chunk(self, progress: float) -> list[Plan]:
        """Plan the next batches; `progress` of the training is from 0 to 1."""
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
        """Draw utterances of a group: early at random among the short ones; later each once before any repeats."""
        members = self.members[group]
        if self.schedule.is_early(progress):
            members = members[: max(1, int(len(members) * self.schedule.short(progress)))]
        seconds = 1.15 * self.corpus.lengths[members].mean() / RATE  # augmentation makes them longer
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
        """Indices of utterances of similar length, with at most `batch_seconds` of padded frames; drops a remainder."""
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
        for category in CATEGORIES:  # a pair has two speakers; a changed voice keeps its dialect
            unknown = joined[at] if category == "DIALECT" else joined[at] | ~changes.faithful[at]
            numbers[category] = np.where(unknown, UNKNOWN, numbers[category])
        return Plan(numbers, {name: np.flatnonzero(numbers[name] != OFF) for name in EFFECTS})


def plain_plan(corpus: Corpus, at: NDArray[np.int64]) -> Plan:
    """Plan a batch without augmentation, except the voices of children, for validation."""
    child, zero = corpus.children[at], np.zeros(len(at), np.int64)
    numbers = voice(corpus.lengths[at], child, child_formants(child), np.ones(len(at)), zero, zero)
    return Plan(numbers | {"gap": zero} | _places(corpus, at, at, np.zeros(len(at), bool)), {})


def _places(corpus: Corpus, first: NDArray[np.int64], second: NDArray[np.int64], joined: NDArray[np.bool_]) -> Numbers:
    """Tags of the first of each pair, and starts and lengths of recordings and labels; length 0 for no second."""
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
    Stream of plans; a thread draws the next chunk while one is used.

    Args:
        planner: the planner.
        state: state of a stream to resume.
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
        """Get the next plan; if it starts a chunk, the chunk after that is drawn for this progress."""
        if self._used == len(self._plans):
            self._plans, self._used = self._next.result(), 0
            self._before, self._progress = self._next_before, self._next_progress
            self._submit(progress)
        plan: Plan = self._plans[self._used]
        self._used += 1
        return plan

    def state_dict(self) -> dict[str, Any]:
        """State to resume with the plan after the last one."""
        return {
            "planner": self._before,
            "progress": self._progress,
            "next_progress": self._next_progress,
            "used": self._used,
        }

    def close(self) -> None:
        """Stop the thread."""
        self._pool.shutdown(wait=True, cancel_futures=True)


@dataclass
class Batch:
    """
    A training batch.

    Args:
        features: (B, T, mels).
        mask: (B, T) bool, True at valid frames.
        frames: (B,) valid frames of the features, on the CPU, where CTC needs lengths.
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
    Computes batches from plans, without waiting for the device.

    Args:
        corpus: all speech.
        extractor: feature extractor to reproduce.
    """

    def __init__(self, corpus: Corpus, extractor: CitrinetFeatureExtractor):
        self.corpus, self.device = corpus, corpus.audio.device
        self.augmenter, self.front_end = Augmenter(self.device), FrontEnd(extractor, self.device)

    def __call__(self, plan: Plan, augment: bool = True) -> Batch:
        """Compute a batch; without `augment` only the voice changes as planned."""
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
        """Send all numbers to the device in two copies."""
        whole = {name: values for name, values in plan.numbers.items() if values.dtype == np.int64} | plan.rows
        real = {name: values for name, values in plan.numbers.items() if values.dtype == np.float64}
        sent = torch.split(self._move(np.concatenate(list(whole.values()))), [len(part) for part in whole.values()])
        numbers = dict(zip(whole, sent, strict=True))
        rows = {name: numbers.pop(name) for name in plan.rows}
        values = self._move(np.stack(list(real.values())))
        numbers |= dict(zip(real, values.float(), strict=True))
        numbers["pitch"] = values[list(real).index("pitch")]  # sample positions need more than float32
        return numbers, rows

    def _move(self, array: NDArray[Any]) -> torch.Tensor:
        tensor = torch.from_numpy(array)
        return tensor.pin_memory().to(self.device, non_blocking=True) if self.device.type == "cuda" else tensor

    def _labels(
        self, prefix: str, flat: torch.Tensor, numbers: dict[str, torch.Tensor], plan: Plan
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """(B, L) labels of pairs, padded with arbitrary labels, and their lengths on the CPU."""
        lengths = plan.numbers[f"{prefix}length1"] + plan.numbers[f"{prefix}length2"]
        places = torch.arange(max(1, int(lengths.max())), device=self.device)
        start1, length1 = numbers[f"{prefix}start1"][:, None], numbers[f"{prefix}length1"][:, None]
        later = numbers[f"{prefix}start2"][:, None] + places - length1
        index = torch.where(places < length1, start1 + places, later)
        return flat[index.clamp(0, len(flat) - 1)], torch.from_numpy(lengths)

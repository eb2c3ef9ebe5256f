"""Schedules by the progress of training, which goes from 0 to 1, in time or in steps."""

import math
import time
from dataclasses import dataclass


@dataclass(frozen=True)
class Schedule:
    """
    Learning rate, augmentation and the weight of the auxiliary heads.

    CTC starts on a plateau with only blanks as output. Short utterances, little augmentation and auxiliary heads for
    syllables help a network to leave it.

    Args:
        learning_rate: maximum learning rate.
        warm_up: progress until which the learning rate rises.
        hold: progress until which it stays at the maximum; then it falls as a cosine.
        early: progress until which utterances are short and not masked.
        full: progress until which the augmentation becomes stronger.
        calm: progress from which on the augmentation is weaker, closer to the speech to be recognised.
    """

    learning_rate: float = 1.5e-3
    warm_up: float = 0.06
    hold: float = 0.25
    early: float = 0.06
    full: float = 0.12
    calm: float = 0.85

    def rate(self, progress: float) -> float:
        """Learning rate."""
        if progress < self.warm_up:
            return self.learning_rate * max(0.02, progress / self.warm_up)
        falling = min(1.0, max(0.0, progress - self.hold) / (1 - self.hold))
        return self.learning_rate * 0.5 * (1 + math.cos(math.pi * falling))

    def is_early(self, progress: float) -> bool:
        """Whether utterances are short, neither joined nor masked."""
        return progress < self.early

    def short(self, progress: float) -> float:
        """Fraction of the utterances, the shortest ones, that are used in the early phase."""
        return 0.3 + 0.5 * progress / self.early

    def strength(self, progress: float) -> float:
        """Strength of the augmentation, from 0 to 1."""
        return 0.6 if progress > self.calm else min(1.0, 0.3 + 0.7 * progress / self.full)

    def clean(self, progress: float) -> float:
        """Fraction of utterances that hardly change."""
        return 0.2 if progress > self.calm else 0.08

    def auxiliary(self, progress: float) -> float:
        """Weight of the loss of the auxiliary heads."""
        return 0.5 - 0.35 * progress


class Clock:
    """
    Progress of a training run.

    Args:
        seconds: time for training; `None` if only steps count.
        steps: number of steps; `None` if only time counts.
        elapsed: seconds of training before an interruption.
    """

    def __init__(self, seconds: float | None, steps: int | None, elapsed: float = 0.0):
        self.seconds, self.steps = seconds, steps
        self._begin = time.monotonic() - elapsed

    @property
    def elapsed(self) -> float:
        """Seconds of training so far."""
        return time.monotonic() - self._begin

    def progress(self, step: int) -> float:
        """Progress after a number of steps, from 0 to 1."""
        by_clock = self.elapsed / self.seconds if self.seconds else 0.0
        return min(1.0, max(by_clock, step / self.steps if self.steps else 0.0))

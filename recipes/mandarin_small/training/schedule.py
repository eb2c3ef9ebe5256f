"""What changes in the course of training, by the clock or by steps: `progress` goes from 0 to 1."""

import math
import time
from dataclasses import dataclass


@dataclass(frozen=True)
class Schedule:
    """
    Learning rate, augmentation and the weight of the auxiliary heads.

    CTC begins on a plateau where it writes nothing but blanks. Short utterances, little augmentation and heads for
    syllables bring a network off it.

    Args:
        learning_rate: the highest.
        warm_up: until then it rises, ...
        hold: ... until then it stays, and then falls as a cosine does.
        early: until then utterances are short and not masked.
        full: until then the augmentation grows.
        calm: from then on it is weaker, as what is to be recognised is.
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
        """Whether utterances are short, and neither joined nor masked."""
        return progress < self.early

    def short(self, progress: float) -> float:
        """The part of the utterances, from the shortest on, that is drawn from early."""
        return 0.3 + 0.5 * progress / self.early

    def strength(self, progress: float) -> float:
        """Of the augmentation, from 0 to 1."""
        return 0.6 if progress > self.calm else min(1.0, 0.3 + 0.7 * progress / self.full)

    def clean(self, progress: float) -> float:
        """Share of utterances that stay nearly as they are."""
        return 0.2 if progress > self.calm else 0.08

    def auxiliary(self, progress: float) -> float:
        """Weight of the loss of the auxiliary heads."""
        return 0.5 - 0.35 * progress


class Clock:
    """
    How far a training is.

    Args:
        seconds: for the training alone; none if steps alone count.
        steps: none if seconds alone count.
        elapsed: seconds that it has taken before an interruption.
    """

    def __init__(self, seconds: float | None, steps: int | None, elapsed: float = 0.0):
        self.seconds, self.steps = seconds, steps
        self._begin = time.monotonic() - elapsed

    @property
    def elapsed(self) -> float:
        """Seconds so far."""
        return time.monotonic() - self._begin

    def progress(self, step: int) -> float:
        """From 0 to 1."""
        by_clock = self.elapsed / self.seconds if self.seconds else 0.0
        return min(1.0, max(by_clock, step / self.steps if self.steps else 0.0))

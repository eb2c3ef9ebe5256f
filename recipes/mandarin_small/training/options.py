"""What a training is told."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch


@dataclass(frozen=True)
class Options:
    """
    What to train, on what, and for how long.

    Args:
        out: folder of the run, with `text` and `speech` of the steps before.
        seconds: for all of it, reading, evaluation and saving included.
        steps: updates of the weights; whichever of the two ends first, if both are given.
        train: files of utterances to train on instead of `text/train.jsonl.gz`.
        heldout: the same for `text/heldout.jsonl.gz`.
        real: manifests of recordings to train on too.
        validation: manifests to score on, beside the held-out sentences.
        size: of the network, one of `SIZES`.
        batch_seconds: of speech in a batch; as many as suit the device if not given.
        splices: utterances to be made of pieces of `real`.
        evaluate_at: parts of the training after which it is scored, beside the end.
        device: such as `cuda`, which is the default where there is one.
        seed: of all chance.
    """

    out: Path
    seconds: float | None = None
    steps: int | None = None
    train: Sequence[Path] = ()
    heldout: Sequence[Path] = ()
    real: Sequence[Path] = ()
    validation: Sequence[Path] = ()
    size: str = "base"
    batch_seconds: float | None = None
    splices: int = 20_000
    evaluate_at: Sequence[float] = (0.6,)
    device: str | None = None
    seed: int = 0

    @property
    def place(self) -> torch.device:
        """The device."""
        return torch.device(self.device or ("cuda" if torch.cuda.is_available() else "cpu"))

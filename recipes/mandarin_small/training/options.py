"""Options of the training step."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch


@dataclass(frozen=True)
class Options:
    """
    Options of the training step.

    Args:
        out: folder of the run, with `text` and `speech` of the steps before.
        seconds: time limit, including reading, evaluation and saving.
        steps: number of training steps; with `seconds`, whichever limit is reached first.
        train: files of utterances to train on instead of `text/train.jsonl.gz`.
        heldout: the same for `text/heldout.jsonl.gz`.
        real: manifests of recordings to train on in addition.
        validation: manifests to validate on, in addition to the held-out sentences.
        size: size of the network, one of `SIZES`.
        batch_seconds: seconds of speech in a batch, by default a value that suits the device.
        splices: number of utterances to make from pieces of `real`.
        evaluate_at: points of the training (0 to 1) at which to evaluate, in addition to the end.
        device: PyTorch device, by default `cuda` if available.
        seed: random seed.
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

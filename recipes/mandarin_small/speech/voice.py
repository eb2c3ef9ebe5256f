"""Interface of the synthesiser's two implementations."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from ..utterance import Utterance

# An utterance and its samples at 16 kHz; `None` if it could not be spoken.
Spoken = tuple[Utterance, NDArray[np.int16] | None]
BACKENDS = ("torch", "onnx")


class Voice(Protocol):
    """A synthesiser for any voice of Kokoro."""

    def speak(self, utterances: Iterable[Utterance]) -> Iterator[list[Spoken]]:
        """Speak utterances in batches, not necessarily in order."""
        ...


def load_voice(folder: Path, backend: str | None = None, device: str | None = None) -> Voice:
    """
    Load Kokoro.

    Args:
        folder: folder of Kokoro, see [`fetch`].
        backend: `torch`, in batches, or `onnx`, in int8 one by one. By default `torch` with a GPU, else `onnx`.
        device: PyTorch device, by default `cuda` if available.

    Raises:
        ValueError: if the device is not available, or is not the CPU for `onnx`.
    """
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise ValueError(f"PyTorch finds no GPU for --device {device}: leave it out to speak on the CPU.")
    backend = backend or ("onnx" if device == "cpu" else "torch")
    if backend == "onnx":
        if device != "cpu":
            raise ValueError(f"--backend onnx speaks on the CPU: leave --device {device} out.")
        from .onnx_voice import OnnxVoice

        return OnnxVoice(folder)
    from .torch_voice import TorchVoice

    return TorchVoice(folder, device)

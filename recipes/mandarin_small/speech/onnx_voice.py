"""Kokoro's int8 file in onnxruntime, one utterance at a time, for machines without a GPU."""

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray

from ..utterance import Utterance
from .fetch import MODEL
from .prompts import Prompts
from .sound import finish
from .voice import Spoken

_GAIN = 1.5  # the file's inverse STFT does not divide by the sum of its squared windows


class OnnxVoice:
    """
    The synthesiser in int8 on one thread, without noise in the source of voiceless sounds.

    Args:
        folder: folder of Kokoro, see [`fetch`].
    """

    def __init__(self, folder: Path):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(folder / MODEL, options, providers=["CPUExecutionProvider"])
        self._prompts = Prompts(folder)

    def speak(self, utterances: Iterable[Utterance]) -> Iterator[list[Spoken]]:
        """Speak utterances in order, one at a time."""
        for utterance in utterances:
            yield [(utterance, self._speak(utterance))]

    def _speak(self, utterance: Utterance) -> NDArray[np.int16] | None:
        prompt = self._prompts(utterance)
        if prompt is None:
            return None
        tokens, style = prompt
        speed = np.array([utterance.speed], np.float32)
        audio = self._session.run(None, {"tokens": np.array([tokens]), "style": style[np.newaxis], "speed": speed})[0]
        return finish(torch.from_numpy(audio.reshape(1, -1) / _GAIN), [audio.size])[0]

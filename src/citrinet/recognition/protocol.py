"""What every recogniser can do, whatever computes."""

from abc import abstractmethod
from collections.abc import Iterable, Iterator
from copy import copy
from dataclasses import dataclass
from typing import Any, Literal, Protocol, overload

import numpy as np

from ..decoding_citrinet import Decoder
from ..result_citrinet import RecognitionResult

Timestamps = Literal["char", "word"]


@dataclass(frozen=True)
class Progress:
    """
    How far a recogniser is with one recording.

    Args:
        done: the part of the recording that is done, from 0 to 1.
        result: what was recognised, once all is done.
    """

    done: float
    result: RecognitionResult | None = None


class Recognizer(Protocol):
    """
    A model that is ready to recognise speech; [`load_recognizer`] makes one.

    ```python
    >>> recognizer = citrinet.load_recognizer("my-model")
    >>> recognizer("speech.wav")["transcript"]
    ```

    Args:
        model: the folder or Hub repository that it was made of.
        sampling_rate: of the waveforms that it takes, in Hz.
        tag_labels: category -> labels of its tag heads.
        pieces: its tokens as SentencePiece writes them, without the blank, which comes after them; none where a model
            is of another kind.
        frame_s: seconds from one frame of its outputs to the next.
        decoder: what finds the tokens in its outputs; greedy decoding if there is none.
    """

    model: str
    sampling_rate: int
    tag_labels: dict[str, list[str]]
    pieces: list[str]
    frame_s: float
    decoder: Decoder | None

    @abstractmethod
    def load(self, source: Any) -> np.ndarray:
        """
        Read audio, and check that this model can take it.

        Args:
            source: what [`load_audio`] takes: a path, an address, bytes, an array, an [`AudioSegment`], ...

        Returns:
            (n,) float32 at `sampling_rate`.

        Raises:
            OSError: if a file cannot be read.
            ValueError: if it is not audio, too short, or holds NaN.
        """

    @abstractmethod
    def stream(
        self,
        waveforms: Iterable[np.ndarray],
        *,
        batch_size: int | None = None,
        batch_seconds: float | None = None,
        return_timestamps: Timestamps | None = None,
        chunk_length_s: float | None = None,
        vad: bool | None = None,
    ) -> Iterator[RecognitionResult]:
        """
        Recognise waveforms one after the other, as they come.

        Args:
            waveforms: (n,) float32 at `sampling_rate`, as [`load`] gives them; each is taken when its turn comes, and
                not held once its features are there.
            batch_size: how many recordings, or windows of long ones, go through the network at a time; one if
                nothing is given. Batches change nothing but the speed.
            batch_seconds: how many seconds of audio go through the network at a time, padding counted; beside it
                `batch_size`, if given, is a limit too. What is longer goes alone.
            return_timestamps: `"char"` or `"word"` for `chunks`.
            chunk_length_s: seconds of a window, 0 for never; windows of 30 s above 120 s without a pause if not given.
            vad: whether to cut at pauses and read each stretch of speech on its own; if not given, above 30 s and
                unless `chunk_length_s` says how to cut.

        Returns:
            A result for each waveform, in their order.
        """

    @abstractmethod
    def follow(
        self,
        waveform: np.ndarray,
        *,
        return_timestamps: Timestamps | None = None,
        chunk_length_s: float | None = None,
        vad: bool | None = None,
    ) -> Iterator[Progress]:
        """
        Recognise one waveform and tell after each of its windows how far it is.

        Args:
            waveform: (n,) float32 at `sampling_rate`, as [`load`] gives it.
            return_timestamps: as in [`stream`].
            chunk_length_s, vad: as in [`stream`].

        Returns:
            [`Progress`], the last one with the result.
        """

    @abstractmethod
    def log_probs(self, waveform: np.ndarray, chunk_length_s: float | None = None) -> np.ndarray:
        """
        What the network says of one waveform, for aligners and decoders.

        Args:
            waveform: (n,) float32 at `sampling_rate`, as [`load`] gives it.
            chunk_length_s: as in [`stream`]; pauses are kept.

        Returns:
            (T', V) float32 natural logarithms of the probabilities of all tokens, the blank the last one.

        Raises:
            ValueError: for a model without such outputs.
        """

    def with_decoder(self, decoder: Decoder | None) -> "Recognizer":
        """The same model, not loaded again, with another decoder; this one keeps its own."""
        other = copy(self)
        other.decoder = decoder
        return other

    @abstractmethod
    def describe(self) -> str:
        """Say in a few lines what the model is."""

    @overload
    def __call__(
        self,
        audio: list[Any],
        return_timestamps: Timestamps | None = None,
        chunk_length_s: float | None = None,
        batch_size: int | None = None,
        batch_seconds: float | None = None,
        vad: bool | None = None,
    ) -> list[RecognitionResult]: ...

    @overload
    def __call__(
        self,
        audio: Any,
        return_timestamps: Timestamps | None = None,
        chunk_length_s: float | None = None,
        batch_size: int | None = None,
        batch_seconds: float | None = None,
        vad: bool | None = None,
    ) -> RecognitionResult: ...

    def __call__(
        self,
        audio: Any,
        return_timestamps: Timestamps | None = None,
        chunk_length_s: float | None = None,
        batch_size: int | None = None,
        batch_seconds: float | None = None,
        vad: bool | None = None,
    ) -> RecognitionResult | list[RecognitionResult]:
        """
        Recognise one recording, or a list of them.

        Args:
            audio: what [`load`] takes, or a list of such.
            return_timestamps: as in [`stream`].
            chunk_length_s, batch_size, batch_seconds, vad: as in [`stream`].

        Returns:
            [`RecognitionResult`], or a list of them.

        Raises:
            OSError, ValueError: as [`load`] does.
        """
        alone = not isinstance(audio, list)
        waveforms = map(self.load, [audio] if alone else audio)  # read as they are needed: hours are large
        options: Any = {"return_timestamps": return_timestamps, "chunk_length_s": chunk_length_s, "vad": vad}
        results = list(self.stream(waveforms, batch_size=batch_size, batch_seconds=batch_seconds, **options))
        return results[0] if alone else results

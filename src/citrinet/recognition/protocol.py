"""What every recogniser can do, whatever computes."""

from abc import abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, Protocol, overload

import numpy as np

from ..result_citrinet import RecognitionResult

Timestamps = Literal["char", "word"]


@dataclass(frozen=True)
class Progress:
    """
    How far a recogniser is with one recording.

    Args:
        done: the part of the recording that is done, from 0 to 1.
        result: what was recognised, once all is done.
        confidence: mean probability of the tokens of `result`, from 0 to 1; none where a model does not say.
    """

    done: float
    result: RecognitionResult | None = None
    confidence: float | None = None


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
    """

    model: str
    sampling_rate: int
    tag_labels: dict[str, list[str]]

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
            chunk_length_s: seconds of a window, 0 for never; windows of 30 s above 120 s if not given.

        Returns:
            A result for each waveform, in their order.
        """

    @abstractmethod
    def follow(
        self, waveform: np.ndarray, *, return_timestamps: Timestamps | None = None, chunk_length_s: float | None = None
    ) -> Iterator[Progress]:
        """
        Recognise one waveform and tell after each of its windows how far it is.

        Args:
            waveform: (n,) float32 at `sampling_rate`, as [`load`] gives it.
            return_timestamps: as in [`stream`].
            chunk_length_s: as in [`stream`].

        Returns:
            [`Progress`], the last one with the result.
        """

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
    ) -> list[RecognitionResult]: ...

    @overload
    def __call__(
        self,
        audio: Any,
        return_timestamps: Timestamps | None = None,
        chunk_length_s: float | None = None,
        batch_size: int | None = None,
        batch_seconds: float | None = None,
    ) -> RecognitionResult: ...

    def __call__(
        self,
        audio: Any,
        return_timestamps: Timestamps | None = None,
        chunk_length_s: float | None = None,
        batch_size: int | None = None,
        batch_seconds: float | None = None,
    ) -> RecognitionResult | list[RecognitionResult]:
        """
        Recognise one recording, or a list of them.

        Args:
            audio: what [`load`] takes, or a list of such.
            return_timestamps: as in [`stream`].
            chunk_length_s: as in [`stream`].
            batch_size, batch_seconds: as in [`stream`].

        Returns:
            [`RecognitionResult`], or a list of them.

        Raises:
            OSError, ValueError: as [`load`] does.
        """
        alone = not isinstance(audio, list)
        waveforms = map(self.load, [audio] if alone else audio)  # read as they are needed: hours are large
        options: Any = {"return_timestamps": return_timestamps, "chunk_length_s": chunk_length_s}
        results = list(self.stream(waveforms, batch_size=batch_size, batch_seconds=batch_seconds, **options))
        return results[0] if alone else results

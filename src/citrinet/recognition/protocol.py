"""The protocol of all recognisers, for any runtime."""

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
    Progress of a recogniser on one recording.

    Args:
        done: fraction of the recording that is done, from 0 to 1.
        result: the result, when all is done.
    """

    done: float
    result: RecognitionResult | None = None


class Recognizer(Protocol):
    """
    A loaded speech recognition model; [`load_recognizer`] returns one.

    ```python
    >>> recognizer = citrinet.load_recognizer("my-model")
    >>> recognizer("speech.wav")["transcript"]
    ```

    Args:
        model: folder or Hub repository of the model.
        sampling_rate: sampling rate of the input waveforms in Hz.
        tag_labels: category -> labels of its tag heads.
        pieces: tokens as SentencePiece writes them, without the blank, which follows them; empty for models other than
            Citrinet.
        frame_s: seconds per output frame.
        decoder: decoder for the outputs; `None` is greedy decoding.
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
        Read audio and check that the model accepts it.

        Args:
            source: anything that [`load_audio`] accepts: a path, a URL, bytes, an array, an [`AudioSegment`], ...

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
        Recognise a stream of waveforms.

        Args:
            waveforms: (n,) float32 at `sampling_rate`, as returned by [`load`]. They are consumed lazily, and none is
                kept after its features are computed.
            batch_size: number of recordings, or windows of long ones, in a batch; defaults to one if `batch_seconds` is
                not given either. Batches affect only the speed.
            batch_seconds: seconds of audio in a batch, including padding; a longer recording is a batch by itself. If
                `batch_size` is given too, both are limits.
            return_timestamps: `"char"` or `"word"` for `chunks`.
            chunk_length_s: window length in seconds, 0 for no windows; by default, audio of more than 120 s without a
                pause is cut into windows of 30 s.
            vad: whether to cut at pauses and recognise each segment of speech separately; by default only above 30 s,
                and only if `chunk_length_s` is not given.

        Returns:
            A result for each waveform, in order.
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
        Recognise one waveform and report progress after each of its windows.

        Args:
            waveform: (n,) float32 at `sampling_rate`, as returned by [`load`].
            return_timestamps: as in [`stream`].
            chunk_length_s, vad: as in [`stream`].

        Returns:
            [`Progress`] objects, the last one with the result.
        """

    @abstractmethod
    def log_probs(self, waveform: np.ndarray, chunk_length_s: float | None = None) -> np.ndarray:
        """
        Compute the log-probabilities of one waveform, for aligners and decoders.

        Args:
            waveform: (n,) float32 at `sampling_rate`, as returned by [`load`].
            chunk_length_s: as in [`stream`]; pauses are kept.

        Returns:
            (T', V) float32 natural log-probabilities of all tokens; the blank is the last token.

        Raises:
            ValueError: if the model has no such outputs.
        """

    def with_decoder(self, decoder: Decoder | None) -> "Recognizer":
        """Return a recogniser that shares this model but has another decoder; this one is unchanged."""
        other = copy(self)
        other.decoder = decoder
        return other

    @abstractmethod
    def describe(self) -> str:
        """Describe the model in a few lines."""

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
            audio: anything that [`load`] accepts, or a list of such values.
            return_timestamps: as in [`stream`].
            chunk_length_s, batch_size, batch_seconds, vad: as in [`stream`].

        Returns:
            [`RecognitionResult`], or a list of them.

        Raises:
            OSError, ValueError: as in [`load`].
        """
        alone = not isinstance(audio, list)
        waveforms = map(self.load, [audio] if alone else audio)  # read lazily: long audio is large
        options: Any = {"return_timestamps": return_timestamps, "chunk_length_s": chunk_length_s, "vad": vad}
        results = list(self.stream(waveforms, batch_size=batch_size, batch_seconds=batch_seconds, **options))
        return results[0] if alone else results

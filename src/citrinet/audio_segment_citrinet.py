"""Parts of recordings, and the errors and warnings for recordings that are too long or too short."""

import math
import warnings
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any

TOLERANCE_S = 0.1  # for rounding in manifests and padding by encoders


class TruncatedAudioWarning(UserWarning):
    """A recording is shorter than its header says or than the requested segment; the available part was read."""


class AudioTooLongError(ValueError):
    """A recording is longer than the caller's limit; decoding stopped at the limit."""


@dataclass(frozen=True)
class AudioSegment:
    """
    A part of a recording, as in a NeMo manifest (NeMo's `AudioSegment.from_file`).

    Args:
        source: anything that [`load_audio`] accepts, except a segment.
        offset: start of the part in seconds.
        duration: length of the part in seconds; `None` reads to the end.
        channel: index of the channel, counted from 0; `None` averages all channels.
    """

    source: Any
    offset: float = 0.0
    duration: float | None = None
    channel: int | None = None

    @property
    def name(self) -> str:
        """Name of the recording, for messages."""
        source = self.source
        if isinstance(source, dict):
            source = source.get("path") or ("the given bytes" if source.get("bytes") else "the given samples")
        elif isinstance(source, (bytes, bytearray, memoryview)):
            source = "the given bytes"
        return str(source) if isinstance(source, str) or hasattr(source, "__fspath__") else "the given samples"

    def __str__(self) -> str:
        """Name of the recording and start and end of the part."""
        if not self.offset and self.duration is None:
            return self.name
        end = "" if self.duration is None else f"{self.offset + self.duration:g}"
        return f"{self.name} ({self.offset:g}-{end} s)"

    def check(self) -> None:
        """
        Check the values of the segment.

        Raises:
            ValueError: if it is a segment of a segment, or has an impossible offset, duration or channel.
        """
        if isinstance(self.source, AudioSegment):
            raise ValueError(f"{self.source.name}: a segment of a segment; give the offset in the recording itself.")
        if not _is_number(self.offset) or self.offset < 0:
            raise ValueError(f"{self.name}: the offset must be 0 s or more, got {self.offset!r}.")
        if self.duration is not None and (not _is_number(self.duration) or self.duration <= 0):
            raise ValueError(
                f"{self.name}: the duration must be more than 0 s, got {self.duration!r}; without one, all is read."
            )
        is_index = isinstance(self.channel, Integral) and not isinstance(self.channel, bool) and self.channel >= 0
        if self.channel is not None and not is_index:
            raise ValueError(f"{self.name}: the channel must be 0, 1, ... or None for all, got {self.channel!r}.")

    def frames(self, rate: int) -> tuple[int, int | None]:
        """Return the number of frames before the segment, and the number in it (`None` for all that follow)."""
        return round(self.offset * rate), None if self.duration is None else round(self.duration * rate)

    def check_channel(self, channels: int) -> None:
        """
        Check that a recording has the channel.

        Raises:
            ValueError: if it has fewer channels.
        """
        if self.channel is not None and self.channel >= channels:
            raise ValueError(f"{self.name}: there is no channel {self.channel}, it has {channels}, counted from 0.")

    def check_limit(self, frames: int, rate: int, max_seconds: float | None) -> None:
        """
        Check the number of frames read so far against a limit.

        Raises:
            AudioTooLongError: if they are longer than `max_seconds`.
        """
        if max_seconds is not None and frames > max_seconds * rate:
            raise AudioTooLongError(f"{self.name}: longer than the limit of {max_seconds:g} s.")

    def warn_if_short(self, frames: int, rate: int, length: int | None = None, is_broken: bool = False) -> None:
        """
        Warn if audio is missing, beyond what rounding in manifests and padding by encoders explain.

        Args:
            frames: number of frames of the segment that were read.
            rate: sampling rate in Hz.
            length: number of frames of the whole recording, if its header has it.
            is_broken: whether the decoder stopped at an error.
        """
        start, said = self.frames(rate)
        if said is None and length is not None:
            said = max(length - start, 0)
        found = f"{frames / rate:.2f} s can be read"
        if said is not None and said - frames > TOLERANCE_S * rate:
            who = "its header says" if self.duration is None else "the segment has"
            self._warn(f"{who} {said / rate:.2f} s, {found}; the recording is cut short or damaged.")
        elif said is None and is_broken:
            self._warn(f"{found}, then it is damaged; its header does not say how long it should be.")

    def beyond(self, length_s: float | None) -> ValueError:
        """Make the error for a segment without any audio; `length_s` is the length of the recording, if known."""
        has = "ends before" if length_s is None else f"has {length_s:.2f} s"
        if length_s is not None and length_s > self.offset:
            has = f"should have {length_s:.2f} s but is cut short or damaged"
        return ValueError(f"{self.name}: the segment begins at {self.offset:.2f} s, the recording {has}.")

    def _warn(self, fault: str) -> None:
        warnings.warn(f"{self}: {fault}", TruncatedAudioWarning, stacklevel=2)


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)


__all__ = ["TOLERANCE_S", "AudioSegment", "AudioTooLongError", "TruncatedAudioWarning"]

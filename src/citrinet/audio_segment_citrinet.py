"""Parts of recordings, and what is wrong with recordings that are longer or shorter than they should be."""

import math
import warnings
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any

TOLERANCE_S = 0.1  # what manifests round, and encoders pad


class TruncatedAudioWarning(UserWarning):
    """A recording is shorter than its header says, or than the segment that was asked for; what is there was read."""


class AudioTooLongError(ValueError):
    """A recording is longer than the caller's limit; no more than the limit was decoded."""


@dataclass(frozen=True)
class AudioSegment:
    """
    A part of a recording, as a NeMo manifest names it (`AudioSegment.from_file` there).

    Args:
        source: what [`load_audio`] takes, other than a segment.
        offset: seconds from its start.
        duration: seconds from there; to the end if not given.
        channel: which of its channels, counted from 0; the mean of all if not given.
    """

    source: Any
    offset: float = 0.0
    duration: float | None = None
    channel: int | None = None

    @property
    def name(self) -> str:
        """The recording, for messages."""
        source = self.source
        if isinstance(source, dict):
            source = source.get("path") or ("the given bytes" if source.get("bytes") else "the given samples")
        elif isinstance(source, (bytes, bytearray, memoryview)):
            source = "the given bytes"
        return str(source) if isinstance(source, str) or hasattr(source, "__fspath__") else "the given samples"

    def __str__(self) -> str:
        """The name of the recording, with the part of it."""
        if not self.offset and self.duration is None:
            return self.name
        end = "" if self.duration is None else f"{self.offset + self.duration:g}"
        return f"{self.name} ({self.offset:g}-{end} s)"

    def check(self) -> None:
        """
        Check that such a part can be.

        Raises:
            ValueError: for a segment of a segment, or an offset, duration or channel that cannot be.
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
        """Frames of a recording before the segment and in it; None for all that follow."""
        return round(self.offset * rate), None if self.duration is None else round(self.duration * rate)

    def check_channel(self, channels: int) -> None:
        """
        Check that a recording has the channel.

        Raises:
            ValueError: if it has fewer.
        """
        if self.channel is not None and self.channel >= channels:
            raise ValueError(f"{self.name}: there is no channel {self.channel}, it has {channels}, counted from 0.")

    def check_limit(self, frames: int, rate: int, max_seconds: float | None) -> None:
        """
        Check what was read so far against a limit.

        Raises:
            AudioTooLongError: if it is longer.
        """
        if max_seconds is not None and frames > max_seconds * rate:
            raise AudioTooLongError(f"{self.name}: longer than the limit of {max_seconds:g} s.")

    def warn_if_short(self, frames: int, rate: int, length: int | None = None, is_broken: bool = False) -> None:
        """
        Say what is missing, if it is more than manifests round and encoders pad.

        Args:
            frames: that were read of the segment.
            rate: frames a second.
            length: of the whole recording in frames, if its header says.
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
        """Make the error for a segment of which there is nothing, in a recording of such a length if that is known."""
        has = "ends before" if length_s is None else f"has {length_s:.2f} s"
        if length_s is not None and length_s > self.offset:
            has = f"should have {length_s:.2f} s but is cut short or damaged"
        return ValueError(f"{self.name}: the segment begins at {self.offset:.2f} s, the recording {has}.")

    def _warn(self, fault: str) -> None:
        warnings.warn(f"{self}: {fault}", TruncatedAudioWarning, stacklevel=2)


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)


__all__ = ["TOLERANCE_S", "AudioSegment", "AudioTooLongError", "TruncatedAudioWarning"]

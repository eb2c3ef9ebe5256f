"""Decode audio files block by block to mono samples at one rate: with soundfile, or else with ffmpeg."""

import os
import re
import shutil
import struct
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import IO, Any

import numpy as np

from .audio_segment_citrinet import AudioSegment
from .resampling_citrinet import Resampler, check_rate

try:
    import soundfile
except (ImportError, OSError):  # OSError: the package is installed, the library it wraps is not
    soundfile = None

BLOCK = 2**18  # samples of all channels together that are decoded at once, for any header: 1 MB
UNKNOWN_LENGTH = 2**62  # frames; libsndfile reports 2^63 - 1
# What soundfile raises for damaged files; some headers make it allocate terabytes.
FAILURES = (RuntimeError, MemoryError, SystemError, OverflowError, TypeError)

# Audio and video containers, by the names of ffmpeg's demuxers. None of them opens further files, as the demuxers for
# playlists, file lists and sessions do (hls, dash, concat, imf, sdp, image2, ...).
CONTAINERS = (
    "3gp,aac,ac3,aiff,amr,amrnb,amrwb,ape,asf,au,avi,caf,dsf,dss,dts,dtshd,eac3,flac,flv,gsm,iff,ircam,loas,m4a,"
    "matroska,mlp,mov,mp3,mp4,mpc,mpc8,mpeg,mpegts,nistsphere,nut,ogg,oma,qcp,rm,shn,sox,tak,truehd,tta,voc,w64,wav,"
    "webm,wtv,wv,xwma"
)


class Waveform:
    """
    Decoded audio of a file: mono samples at the wanted rate, and how many there should be.

    Args:
        segment: part of the file to read.
        sampling_rate: wanted sampling rate in Hz.
        max_seconds: longest audio to accept.
        rate: sampling rate of the file in Hz.
        channels: number of channels of the file.

    Raises:
        ValueError: if the file lacks the segment's channel, or its rate is impossible.
    """

    def __init__(self, segment: AudioSegment, sampling_rate: int, max_seconds: float | None, rate: int, channels: int):
        check_rate(rate, segment.name)
        segment.check_channel(channels)
        self.segment, self.rate, self.channels = segment, rate, channels
        self.start, self.wanted = segment.frames(rate)
        self.frames = 0  # read so far
        self.length: int | None = None  # frames of the whole recording, if its header says
        self.is_broken = False  # the decoder stopped at an error
        self._max_seconds = max_seconds
        self._resampler = Resampler(rate, sampling_rate)
        self._samples = bytearray()  # grows in place

    @property
    def next_frames(self) -> int:
        """Number of frames to decode next, 0 when the whole segment was read."""
        block = max(BLOCK // self.channels, 1)
        return block if self.wanted is None else min(block, self.wanted - self.frames)

    def add(self, block: np.ndarray) -> None:
        """
        Add decoded frames (n, channels).

        Raises:
            AudioTooLongError: if there are more frames than the limit allows.
        """
        self.frames += len(block)
        self.segment.check_limit(self.frames, self.rate, self._max_seconds)
        one_channel = self.channels == 1 or self.segment.channel is not None
        self._append(block[:, self.segment.channel or 0] if one_channel else block.mean(axis=1, dtype=np.float32))

    def samples(self) -> np.ndarray:
        """Return all samples, (n,) float32; nothing can be added afterwards."""
        self._append(np.zeros(0, np.float32), last=True)
        return np.frombuffer(self._samples, np.float32)

    def _append(self, mono: np.ndarray, last: bool = False) -> None:
        resampled = self._resampler(np.ascontiguousarray(mono, np.float32), last)
        self._samples += resampled.data.cast("B") if len(resampled) else b""


NewWaveform = Callable[[int, int], Waveform]  # (sampling rate, number of channels)


def read_file(path: Path, segment: AudioSegment, sampling_rate: int, max_seconds: float | None = None) -> np.ndarray:
    """
    Read a part of a file; only that part is decoded.

    Args:
        path: the file.
        segment: the part; its source is the name in messages.
        sampling_rate: sampling rate of the result in Hz.
        max_seconds: longest audio to accept.

    Returns:
        (n,) float32.

    Warns:
        TruncatedAudioWarning: if it is shorter than its header or the segment says.

    Raises:
        AudioTooLongError: if it is longer than `max_seconds`.
        ValueError: if it is not audio, is damaged or empty, lacks the segment's channel or ends before the segment.
    """

    def new_waveform(rate: int, channels: int) -> Waveform:
        return Waveform(segment, sampling_rate, max_seconds, rate, channels)

    waveform = None if soundfile is None else _read_with_soundfile(path, new_waveform)
    if waveform is None or waveform.is_broken:
        waveform = _read_with_ffmpeg(path, segment, new_waveform, waveform)
    if not waveform.frames:
        if segment.offset:
            raise segment.beyond(None if waveform.length is None else waveform.length / waveform.rate)
        raise ValueError(f"{segment.name}: the audio is {'damaged' if waveform.is_broken else 'empty'}.")
    segment.warn_if_short(waveform.frames, waveform.rate, waveform.length, waveform.is_broken)
    return waveform.samples()


def count_channels(path: Path) -> int:
    """
    Return the number of channels that the header of a file gives.

    Raises:
        ValueError: if it is not audio.
    """
    nothing = AudioSegment(path, duration=0.0)

    def new_waveform(rate: int, channels: int) -> Waveform:
        return Waveform(nothing, rate, None, rate, channels)

    waveform = None if soundfile is None else _read_with_soundfile(path, new_waveform)
    return (waveform or _read_with_ffmpeg(path, nothing, new_waveform, None)).channels


def _read_with_soundfile(path: Path, new_waveform: NewWaveform, can_seek: bool = True) -> Waveform | None:
    """Read with soundfile; `None` if it cannot open the file."""
    try:
        with _repaired(path) as (file, length):
            waveform = new_waveform(file.samplerate, file.channels)
            waveform.length = length
            if not can_seek:
                _decode(file, waveform, skip=waveform.start)
            elif length is None or waveform.start < length:
                _seek(file, waveform.start)
                _decode(file, waveform)
            return waveform
    except _NoWayThere:
        return _read_with_soundfile(path, new_waveform, can_seek=False)
    except _Unreadable:
        return None


class _Unreadable(Exception):
    """A file that soundfile cannot open."""


class _NoWayThere(Exception):
    """A position in a damaged file that can only be reached by decoding everything before it."""


def _open(path: Path) -> Any:
    try:
        file = soundfile.SoundFile(str(path) if sys.platform == "win32" else os.fsencode(path))
    except FAILURES as error:
        raise _Unreadable from error
    # Otherwise it seeks to its own position after each block, and the MP3 decoder loses the previous frame.
    file.seekable = lambda: False
    return file


def _seek(file: Any, frame: int) -> None:
    try:
        if frame:
            file.seek(frame)
    except FAILURES as error:
        raise _NoWayThere from error


def _decode(file: Any, waveform: Waveform, skip: int = 0) -> None:
    buffer = np.empty((max(BLOCK // file.channels, 1), file.channels), np.float32)
    while count := min(skip, len(buffer)) or waveform.next_frames:
        block = _next_block(file, buffer[:count], waveform)
        if skip:
            skip -= len(block)
        else:
            waveform.add(block)
        if not len(block) or waveform.is_broken:
            break


def _next_block(file: Any, buffer: np.ndarray, waveform: Waveform) -> np.ndarray:
    """Decode into a buffer (frames, channels); after an error, return what was decoded before it."""
    buffer.fill(np.nan)
    try:
        block: np.ndarray = file.read(out=buffer)
        return block
    except FAILURES:
        waveform.is_broken = True
        decoded = np.flatnonzero(~np.isnan(buffer).all(axis=1))
        return buffer[: decoded[-1] + 1 if len(decoded) else 0]


@contextmanager
def _repaired(path: Path) -> Iterator[tuple[Any, int | None]]:
    """Open a file, or a copy that can be read to its end; also give its number of frames if the header has it."""
    with _open(path) as file:
        repair = _find_repair(path, file)
        if repair is None:
            yield file, _length(file)
            return
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        copy = Path(folder) / "audio"
        shutil.copyfile(path, copy)
        repair(copy)
        with _open(copy) as file:
            yield file, None


def _length(file: Any) -> int | None:
    """Number of frames in the header; for a truncated file libsndfile counts what is there and logs both sizes."""
    if file.frames >= UNKNOWN_LENGTH:
        return None
    sizes = re.search(r"^\s*(?:data|SSND|Data Size|riff)\s*: (\d+) \(should be (\d+)\)", file.extra_info, re.MULTILINE)
    said, there = map(int, sizes.groups()) if sizes else (0, 0)
    is_placeholder = min(abs(said - 2**31), abs(said - 2**32)) < 2**16  # written by programs that write to a pipe
    frames: int = file.frames
    return frames * said // there if said > there > 0 and not is_placeholder else frames


def _find_repair(path: Path, file: Any) -> Callable[[Path], None] | None:
    if file.format in ("WAV", "WAVEX", "RF64") and not file.frames:
        return _say_no_size
    if file.format == "MP3" and (found := _find_mp3_frame(path)) is not None:
        start, header, says_frames = found
        return None if says_frames else partial(_say_many_frames, start=start, header=header)
    return None


def _say_no_size(wav: Path) -> None:
    """Extend the data of a WAV whose header says 0 bytes, because its size was never filled in, to the file's end."""
    with wav.open("r+b") as file:
        file.write(b"RIFF")  # for RF64, which keeps its size in another chunk
        position = 12
        while len(header := _read_at(file, position, 8)) == 8:
            name, size = struct.unpack("<4sI", header)
            if name in (b"data", b"ds64"):
                file.seek(position)
                file.write(b"JUNK" if name == b"ds64" else b"data\xff\xff\xff\xff")
            if name == b"data":
                break
            position += 8 + size + size % 2


def _find_mp3_frame(mp3: Path) -> tuple[int, bytes, bool] | None:
    """Position and header of the first layer III frame, and whether it gives a plausible number of frames."""
    with mp3.open("rb") as file:
        tag = file.read(10)
        size = sum((byte & 127) << shift for byte, shift in zip(tag[6:], (21, 14, 7, 0), strict=False))
        after_tag = 10 + size if tag.startswith(b"ID3") else 0
        content = _read_at(file, after_tag, 2**14)
    frame = re.search(rb"\xff[\xe2\xe3\xf2\xf3\xfa\xfb][\x10-\xeb].", content, re.DOTALL)
    if frame is None:
        return None
    start = after_tag + frame.start()
    # Xing header: flags for the fields that follow, the number of frames, the number of bytes.
    xing = re.compile(rb"(?:Xing|Info)\0\0\0(.)(.{4})(.{4})", re.DOTALL).search(content, frame.start())
    if xing is None:
        return start, frame[0], b"VBRI" in content[frame.start() :]
    flags, frames, size = xing[1][0], *(int.from_bytes(field, "big") for field in xing.groups()[1:])
    is_longer = flags & 2 and mp3.stat().st_size - start > 1.1 * size + 2**12  # for example two concatenated files
    return start, frame[0], bool(flags & 1 and frames and not is_longer)


def _say_many_frames(mp3: Path, start: int, header: bytes) -> None:
    """
    Insert a first frame into an MP3 whose header gives more frames than the file can hold.

    Without a number of frames, libsndfile reads only as many as it estimates from the sizes of the file and of its
    first frame: too few if that frame is larger than the mean.
    """
    is_version_1, is_mono = header[1] & 0x08, header[3] >> 6 == 3
    rate = (44100, 48000, 32000)[header[2] >> 2 & 3] >> (0 if is_version_1 else 1 if header[1] & 0x10 else 2)
    size = 144 * 128_000 // rate if is_version_1 else 72 * 80_000 // rate  # at the bit rate with index 9
    side_information = (17 if is_mono else 32) if is_version_1 else (9 if is_mono else 17)
    frame = bytes([0xFF, header[1] | 1, 0x90 | header[2] & 0x0C, header[3]]) + bytes(side_information)
    with mp3.open("rb") as old, (mp3.parent / "longer").open("wb") as new:
        frame += b"Xing" + struct.pack(">II", 1, mp3.stat().st_size // 24)  # the smallest frame has 24 bytes
        new.write(frame.ljust(size, b"\0"))
        old.seek(start)
        shutil.copyfileobj(old, new)
    (mp3.parent / "longer").replace(mp3)


def _read_at(file: IO[bytes], position: int, count: int) -> bytes:
    file.seek(position)
    return file.read(count)


def _read_with_ffmpeg(path: Path, segment: AudioSegment, new_waveform: NewWaveform, first: Waveform | None) -> Waveform:
    """Read with ffmpeg if it is installed; in a damaged file it may get further than soundfile did in `first`."""
    ffmpeg = shutil.which("ffmpeg")
    waveform = None if ffmpeg is None else _run_ffmpeg(ffmpeg, path, segment, new_waveform)
    if first is not None and (waveform is None or waveform.frames <= first.frames):
        return first
    if waveform is not None:
        if first is not None and first.rate == waveform.rate:
            waveform.length = first.length
        return waveform
    if ffmpeg is None:
        raise ValueError(
            f"{segment.name}: not an audio format that soundfile reads (wav, flac, mp3, ogg). If it is another format, "
            "such as m4a, install ffmpeg; otherwise the file is damaged or not audio."
        )
    raise ValueError(
        f"{segment.name}: neither soundfile nor ffmpeg can read this as audio; it is damaged, not audio, or a list of "
        "other files."
    )


def _run_ffmpeg(ffmpeg: str, path: Path, segment: AudioSegment, new_waveform: NewWaveform) -> Waveform | None:
    """Decode with ffmpeg; `None` if it cannot open the file."""
    # Seek to one second before the segment and decode from there: decoders lose some milliseconds after a seek.
    lead = min(segment.offset, 1.0)
    jump = ["-ss", f"{segment.offset - lead:.6f}"] if segment.offset > lead else []
    part = ["-ss", f"{lead:.6f}"] if lead else []
    part += ["-t", f"{segment.duration:.6f}"] if segment.duration else []
    command = [ffmpeg, "-nostdin", "-hide_banner", "-nostats", "-v", "level+info"]
    command += ["-protocol_whitelist", "file", "-format_whitelist", CONTAINERS, *jump, "-i", f"file:{path}", *part]
    # AU is the simplest container that stores rate and channels and can be written to a pipe.
    command += ["-vn", "-sn", "-dn", "-c:a", "pcm_f32be", "-f", "au", "-"]
    with tempfile.TemporaryFile() as log:
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log) as process:
            assert process.stdout is not None
            try:
                waveform = _read_au(process.stdout, new_waveform)
            except BaseException:
                process.kill()
                raise
        log.seek(0)
        lines = log.read(2**20).decode(errors="replace")
    if waveform is not None:
        waveform.length = _announced(lines, waveform.rate)
        waveform.is_broken = process.returncode != 0 and waveform.next_frames > 0
    return waveform


def _read_au(stream: IO[bytes], new_waveform: NewWaveform) -> Waveform | None:
    header = stream.read(24)
    if len(header) < 24:
        return None
    _, start, _, _, rate, channels = struct.unpack(">4s5I", header)
    stream.read(start - 24)
    waveform = new_waveform(rate, channels)
    while count := waveform.next_frames:
        content = stream.read(4 * channels * count)
        frames = len(content) // (4 * channels)
        if not frames:
            break
        waveform.add(np.frombuffer(content, ">f4", frames * channels).reshape(frames, channels))
    return waveform


def _announced(log: str, rate: int) -> int | None:
    """Number of frames in a container's header; with video it may be the video's, so it counts only after errors."""
    duration = re.search(r"^.*\bDuration: (\d+):(\d+):(\d+\.\d+)", log, re.MULTILINE)
    has_pictures = re.search(r"Stream #\S+ .*Video: (?!.*attached pic)", log)
    if duration is None or "Estimating duration" in log or (has_pictures and "[error]" not in log):
        return None
    hours, minutes, seconds = map(float, duration.groups())
    return round((3600 * hours + 60 * minutes + seconds) * rate)


__all__ = ["count_channels", "read_file"]

"""Files as they are: headers that say nothing or too much, ends that are missing, parts of long recordings."""

import io
import struct
import subprocess
import warnings

import numpy as np
import pytest
import soundfile

from citrinet import AudioSegment, AudioTooLongError, TruncatedAudioWarning, audio_file_citrinet, load_audio
from helpers import synthetic_speech

RATE = 16000
SPEECH = synthetic_speech(4.0)
VIDEO = ["-f", "lavfi", "-i", "testsrc=size=64x48:rate=5:duration=4"]
# Formats that ffmpeg reads for us, with what it writes them by.
FFMPEG_FORMATS = {
    "m4a": ["-movflags", "+faststart"],
    "alac.m4a": ["-c:a", "alac"],
    "mp4": [],
    "webm": ["-c:a", "libopus"],
    "mkv": ["-c:a", "libvorbis"],
    "mov": ["-c:a", "pcm_s16le"],
    "wma": [],
    "aac": [],
    "wv": [],
    "flv": ["-ar", "44100"],
    "ts": ["-c:a", "aac"],
    "avi": ["-c:a", "libmp3lame"],
    "3gp": ["-c:a", "aac"],
    "ac3": [],
}


@pytest.fixture
def no_ffmpeg(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))


@pytest.fixture
def no_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error", TruncatedAudioWarning)
        yield


@pytest.fixture
def decoded(monkeypatch) -> list[int]:
    """Frames that were decoded, block by block."""
    blocks = []
    add = audio_file_citrinet.Waveform.add

    def count(self, block):
        blocks.append(len(block))
        add(self, block)

    monkeypatch.setattr(audio_file_citrinet.Waveform, "add", count)
    return blocks


def encoded(samples=SPEECH, rate=RATE, **options) -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, rate, **options)
    return buffer.getvalue()


def write_with_ffmpeg(ffmpeg, path, samples=SPEECH, options=(), before=()):
    wav = path.with_name("source.wav")
    soundfile.write(wav, samples, RATE)
    subprocess.run([ffmpeg, "-y", "-v", "error", *before, "-i", wav, *options, path], check=True)
    return path


def assert_same(found, expected, tolerance=0.01):
    """The same sound, up to a shift of some milliseconds and what a lossy encoder changes."""
    assert abs(len(found) - len(expected)) <= 0.15 * RATE
    length = min(len(found), len(expected))
    spectrum = np.fft.rfft(found[:length], 2 * length) * np.fft.rfft(expected[:length], 2 * length).conj()
    match = np.fft.irfft(spectrum) / (np.linalg.norm(found[:length]) * np.linalg.norm(expected[:length]))
    shift = int(match.argmax())
    assert match[shift] > 0.9
    assert min(shift, 2 * length - shift) <= tolerance * RATE


# Headers without a length


def wav_of_size(size: int, magic: bytes = b"RIFF") -> bytes:
    """A WAV whose header says so many bytes; samples and an odd chunk in between as recorders write them."""
    pcm = (SPEECH * 32767).astype("<i2").tobytes()
    chunks = b"LIST" + struct.pack("<I", 5) + b"INFOx\0"
    if magic == b"RF64":
        chunks = b"ds64" + struct.pack("<IQQQI", 28, 0, 0, 0, 0)
    chunks += b"fmt " + struct.pack("<IHHIIHH", 16, 1, 1, RATE, 2 * RATE, 2, 16)
    riff = min(size + 4 + len(chunks) + 8, 0xFFFFFFFF) if size else 0
    return magic + struct.pack("<I", riff) + b"WAVE" + chunks + b"data" + struct.pack("<I", size) + pcm


@pytest.mark.parametrize("size", [0, 0xFFFFFFFF, 0xFFFFFFFE, 0x7FFFFFFF, 0x80000000, 0x7FFFF000])
def test_wav_without_a_size(size, no_ffmpeg, no_warning):
    assert np.abs(load_audio(wav_of_size(size)) - SPEECH).max() < 1e-4


def test_rf64_without_a_size(no_ffmpeg, no_warning):
    assert np.abs(load_audio(wav_of_size(0xFFFFFFFF, b"RF64")) - SPEECH).max() < 1e-4


def test_a_wav_with_a_header_alone_is_empty(no_ffmpeg):
    content = wav_of_size(0)
    with pytest.raises(ValueError, match="empty"):
        load_audio(content[: content.index(b"data") + 8])


def flac_of_length(frames: int, samples=SPEECH) -> bytes:
    """Its number of samples has 36 bits, from the middle of byte 21 on."""
    content = bytearray(encoded(samples, format="FLAC"))
    content[21] = content[21] & 0xF0 | frames >> 32
    content[22:26] = (frames & 0xFFFFFFFF).to_bytes(4, "big")
    return bytes(content)


def test_flac_without_a_length(no_ffmpeg, no_warning, tmp_path):
    path = tmp_path / "streamed.flac"
    path.write_bytes(flac_of_length(0))
    for source in (path, path.read_bytes()):
        assert np.abs(load_audio(source) - SPEECH).max() < 1e-4
    part = load_audio(AudioSegment(path, 1.5, 1.0))
    assert np.abs(part - SPEECH[24000:40000]).max() < 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("rate", [11025, 16000, 22050, 44100])
def test_mp3_without_a_length(rate, channels, ffmpeg, no_warning, tmp_path):
    """Loud at first, so that the first frame is larger than most, and the length estimated by it far too short."""
    loud, quiet = np.random.default_rng(0).uniform(-0.5, 0.5, 2 * rate), 0.1 * np.sin(0.05 * np.arange(18 * rate))
    samples = np.concatenate([loud, quiet]).astype(np.float32)
    wav, mp3 = tmp_path / "x.wav", tmp_path / "x.mp3"
    soundfile.write(wav, np.stack([samples] * channels, 1), rate)
    options = ["-q:a", "2", "-write_xing", "0"]
    subprocess.run([ffmpeg, "-v", "error", "-i", wav, *options, mp3], check=True)
    for tag in (b"", b"ID3\4\0\0\0\0\2\0" + bytes(256)):
        mp3.write_bytes(tag + mp3.read_bytes().removeprefix(tag))
        found = load_audio(mp3, rate)
        assert_same(found[3 * rate : 15 * rate], samples[3 * rate : 15 * rate], tolerance=0.2)
        assert 20.0 <= len(found) / rate < 20.3
        assert abs(len(load_audio(AudioSegment(mp3, 15.0, 4.0), rate)) - 4 * rate) <= 1


def test_two_mp3_in_one_file(no_ffmpeg, no_warning):
    one = encoded(format="MP3")
    assert len(load_audio(one + one)) / RATE == pytest.approx(8.0, abs=0.3)


# Damaged headers


@pytest.mark.parametrize("frames", [64_424_542_064, 2**36 - 1, 10_000_000])
def test_flac_that_claims_hours(frames, no_ffmpeg):
    """A buffer for as many would take gigabytes, or all the memory that there is."""
    with pytest.warns(TruncatedAudioWarning, match=f"says {frames / RATE:.2f} s, 4.00 s can be read"):
        assert np.abs(load_audio(flac_of_length(frames)) - SPEECH).max() < 1e-4


@pytest.mark.parametrize("rate", [1, 999, 800_000, 4_000_000_000])
def test_rates_of_damaged_headers(rate, no_ffmpeg):
    content = encoded(format="WAV")
    with pytest.raises(ValueError, match=r"1000 to 768000 Hz|not an audio format"):
        load_audio(content[:24] + struct.pack("<I", rate) + content[28:])


@pytest.mark.parametrize("suffix", ["WAV", "FLAC", "OGG", "MP3", "AIFF", "AU", "CAF", "W64"])
def test_any_damage_is_one_error(suffix, no_ffmpeg):
    """Bytes of the first 200 changed at random: a result, with or without a warning, or one ValueError."""
    content, generator = encoded(format=suffix), np.random.default_rng(0)
    failed = 0
    for _ in range(60):
        damaged = bytearray(content)
        for place in generator.integers(0, 200, size=4):
            damaged[place] = generator.integers(0, 256)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", TruncatedAudioWarning)
                assert load_audio(bytes(damaged), max_seconds=60).dtype == np.float32
        except ValueError as error:
            failed += 1
            assert "\n" not in str(error)
    assert failed, "nothing was damaged"


# Files that are shorter than they say


@pytest.mark.parametrize("suffix", ["WAV", "FLAC", "MP3", "AIFF", "AU", "W64"])
def test_cut_files(suffix, no_ffmpeg, tmp_path):
    content, path = encoded(format=suffix), tmp_path / f"cut.{suffix.lower()}"
    path.write_bytes(content[: len(content) // 2])
    with pytest.warns(TruncatedAudioWarning, match=r"cut\.\w+: its header says 4.00 s, [12]\.\d\d s can be read"):
        found = load_audio(path)
    assert 1.0 < len(found) / RATE < 2.6
    assert_same(found, SPEECH[: len(found)])


@pytest.mark.parametrize("suffix", ["WAV", "FLAC", "MP3", "OGG", "AIFF", "AU", "W64", "CAF"])
def test_whole_files_are_quiet(suffix, no_ffmpeg, no_warning):
    assert_same(load_audio(encoded(format=suffix)), SPEECH)


@pytest.mark.parametrize("suffix", ["m4a", "webm", "wv", "flv"])
def test_cut_files_with_ffmpeg(suffix, ffmpeg, tmp_path):
    path = write_with_ffmpeg(ffmpeg, tmp_path / f"x.{suffix}", np.tile(SPEECH, 5), FFMPEG_FORMATS[suffix])
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.warns(TruncatedAudioWarning, match=r"its header says (20|19)\.\d\d s, \d+\.\d\d s can be read"):
        found = load_audio(path)
    assert 5 < len(found) / RATE < 15


def test_cut_films(ffmpeg, tmp_path):
    film = write_with_ffmpeg(ffmpeg, tmp_path / "x.mkv", before=VIDEO)
    content = film.read_bytes()
    film.write_bytes(content[: len(content) // 2])
    with pytest.warns(TruncatedAudioWarning, match="its header says 4"):
        load_audio(film)


def test_films_whose_sound_ends_before_the_pictures_are_whole(ffmpeg, no_warning, tmp_path):
    film = write_with_ffmpeg(ffmpeg, tmp_path / "x.mp4", SPEECH[:RATE], before=VIDEO)
    assert_same(load_audio(film), SPEECH[:RATE], tolerance=0.1)


def test_a_flaw_in_the_middle(ffmpeg, monkeypatch, tmp_path):
    """ffmpeg goes on behind it; without ffmpeg, what stands before it counts."""
    content = bytearray(encoded(np.tile(SPEECH, 3), format="FLAC"))
    middle = len(content) // 2
    content[middle : middle + 8000] = bytes(8000)
    with pytest.warns(TruncatedAudioWarning, match="says 12.00 s"):
        with_ffmpeg = load_audio(bytes(content))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.warns(TruncatedAudioWarning, match="says 12.00 s"):
        without = load_audio(bytes(content))
    assert 3 * RATE < len(without) < 7 * RATE < 9 * RATE < len(with_ffmpeg)
    assert np.abs(without[: 3 * RATE] - np.tile(SPEECH, 3)[: 3 * RATE]).max() < 1e-4


# Formats of ffmpeg


@pytest.mark.slow
@pytest.mark.parametrize("suffix", FFMPEG_FORMATS)
def test_formats_of_ffmpeg(suffix, ffmpeg, no_warning, tmp_path):
    before = VIDEO if suffix in ("mkv", "mov") else ()
    path = write_with_ffmpeg(ffmpeg, tmp_path / f"x.{suffix}", options=FFMPEG_FORMATS[suffix], before=before)
    whole = load_audio(path)
    assert_same(whole, SPEECH, tolerance=0.1)
    assert_same(load_audio(AudioSegment(path, 2.0, 1.0)), whole[2 * RATE : 3 * RATE], tolerance=0.1)


def test_without_soundfile(ffmpeg, monkeypatch):
    monkeypatch.setattr(audio_file_citrinet, "soundfile", None)
    assert np.abs(load_audio(encoded(format="WAV")) - SPEECH).max() < 1e-4


# Limits


def silence(path, seconds, rate=8000):
    with soundfile.SoundFile(path, "w", rate, 1) as file:
        for _ in range(seconds // 60):
            file.write(np.zeros(60 * rate, np.float32))
    return path


@pytest.mark.slow
def test_decoding_stops_at_the_limit(decoded, no_ffmpeg, tmp_path):
    path = silence(tmp_path / "hours.flac", 2 * 3600)
    assert path.stat().st_size < 1_000_000
    with pytest.raises(AudioTooLongError, match="limit of 60 s"):
        load_audio(path, max_seconds=60)
    assert sum(decoded) <= 60 * 8000 + audio_file_citrinet.BLOCK
    assert len(load_audio(AudioSegment(path, 3600, 50), max_seconds=60)) == 50 * RATE


@pytest.mark.slow
def test_ffmpeg_stops_at_the_limit(decoded, ffmpeg, tmp_path):
    path = tmp_path / "hours.mka"
    subprocess.run([ffmpeg, "-v", "error", "-i", silence(tmp_path / "x.flac", 1800), "-c:a", "wavpack", path])
    with pytest.raises(AudioTooLongError, match="limit of 60 s"):
        load_audio(path, max_seconds=60)
    assert sum(decoded) <= 60 * 8000 + audio_file_citrinet.BLOCK


def test_a_limit_that_is_kept(no_ffmpeg):
    assert len(load_audio(encoded(format="FLAC"), max_seconds=4.0)) == 4 * RATE
    assert len(load_audio(SPEECH, max_seconds=4.0)) == 4 * RATE
    with pytest.raises(AudioTooLongError, match="limit of 3 s"):
        load_audio(SPEECH, max_seconds=3.0)


# Segments


@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg", "mp3", "aiff"])
def test_a_segment_is_a_part_of_the_whole(suffix, decoded, no_ffmpeg, no_warning, tmp_path):
    path = tmp_path / f"x.{suffix}"
    path.write_bytes(encoded(np.tile(SPEECH, 3), format=suffix.upper()))
    whole = load_audio(path)
    for offset, duration in ((0, 2.5), (1.25, None), (3.1, 4.05), (10.0, 2.0), (0.0, None), (7, 100 / RATE)):
        decoded.clear()
        start, count = round(offset * RATE), len(whole) if duration is None else round(duration * RATE)
        part = load_audio(AudioSegment(path, offset, duration))
        assert np.abs(part - whole[start : start + count]).max() < 1e-6
        assert len(part) == min(count, len(whole) - start) == sum(decoded)


@pytest.mark.slow
def test_a_segment_of_a_long_recording_is_all_that_is_decoded(decoded, ffmpeg, tmp_path):
    flac = silence(tmp_path / "hour.flac", 3600, 4000)
    m4a = tmp_path / "hour.m4a"
    subprocess.run([ffmpeg, "-v", "error", "-i", flac, "-c:a", "alac", m4a], check=True)
    for path in (flac, m4a):
        decoded.clear()
        assert len(load_audio(AudioSegment(path, 3000.5, 3.0))) == 3 * RATE
        assert sum(decoded) == 3 * 4000


@pytest.mark.parametrize("rate", [8000, 22050, 44100])
def test_segments_count_seconds_whatever_the_rate(rate, no_warning):
    tone = np.sin(2 * np.pi * 300 * np.arange(3 * rate) / rate).astype(np.float32)
    for source in (encoded(tone, rate, format="FLAC"), {"array": tone, "sampling_rate": rate}):
        part = load_audio(AudioSegment(source, 1.0, 0.5))
        expected = np.sin(2 * np.pi * 300 * (1 + np.arange(8000) / RATE))
        assert len(part) == 8000
        assert np.abs(part - expected)[200:-200].max() < 5e-3


def test_channels(ffmpeg, tmp_path):
    stereo = np.stack([SPEECH, 0.25 * SPEECH], axis=1)
    wav, m4a = tmp_path / "x.wav", tmp_path / "x.m4a"
    soundfile.write(wav, stereo, RATE)
    subprocess.run([ffmpeg, "-v", "error", "-i", wav, "-c:a", "alac", m4a], check=True)
    for source in (wav, wav.read_bytes(), m4a, stereo, stereo.T, {"array": stereo, "sampling_rate": RATE}):
        for channel, gain in ((0, 1.0), (1, 0.25), (None, 0.625)):
            found = load_audio(AudioSegment(source, 1.0, 2.0, channel))
            assert np.abs(found - gain * SPEECH[RATE : 3 * RATE]).max() < 1e-4
        with pytest.raises(ValueError, match="no channel 2, it has 2"):
            load_audio(AudioSegment(source, channel=2))


def test_segments_at_the_end(no_ffmpeg, tmp_path):
    path = tmp_path / "x.flac"
    path.write_bytes(encoded(format="FLAC"))
    for source in (path, SPEECH):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert len(load_audio(AudioSegment(source, 3.0, 1.05))) == RATE  # as manifests round
        with pytest.warns(TruncatedAudioWarning, match=r"\(3-5 s\): the segment has 2.00 s, 1.00 s can be read"):
            assert len(load_audio(AudioSegment(source, 3.0, 2.0))) == RATE
        with pytest.raises(ValueError, match=r"begins at 5.00 s, the recording has 4.00 s"):
            load_audio(AudioSegment(source, 5.0, 2.0))


def test_segments_behind_the_end_of_what_ffmpeg_reads(ffmpeg, tmp_path):
    path = write_with_ffmpeg(ffmpeg, tmp_path / "x.m4a")
    with pytest.raises(ValueError, match=r"begins at 50.00 s, the recording has 4\.0\d s"):
        load_audio(AudioSegment(path, 50.0))


def test_segments_of_cut_files(no_ffmpeg, tmp_path):
    path = tmp_path / "x.flac"
    content = encoded(format="FLAC")
    path.write_bytes(content[: len(content) // 2])
    assert np.abs(load_audio(AudioSegment(path, 0.3, 0.5)) - SPEECH[4800:12800]).max() < 1e-4
    with pytest.raises(ValueError, match=r"begins at 3.50 s, the recording should have 4.00 s"):
        load_audio(AudioSegment(path, 3.5, 0.5))


@pytest.mark.parametrize(
    ("segment", "message"),
    [
        (AudioSegment(SPEECH, offset=-1.0), "offset"),
        (AudioSegment(SPEECH, offset=float("nan")), "offset"),
        (AudioSegment(SPEECH, offset=float("inf")), "offset"),
        (AudioSegment(SPEECH, offset="1"), "offset"),
        (AudioSegment(SPEECH, duration=-1.0), "duration"),
        (AudioSegment(SPEECH, duration=0), "duration"),
        (AudioSegment(SPEECH, duration=float("nan")), "duration"),
        (AudioSegment(SPEECH, duration=True), "duration"),
        (AudioSegment(SPEECH, channel=-1), "channel"),
        (AudioSegment(SPEECH, channel=0.5), "channel"),
        (AudioSegment(SPEECH, channel="left"), "channel"),
        (AudioSegment(AudioSegment(SPEECH)), "segment of a segment"),
    ],
)
def test_segments_that_cannot_be(segment, message):
    with pytest.raises(ValueError, match=message):
        load_audio(segment)


def test_names_of_segments():
    assert str(AudioSegment("a.wav")) == "a.wav"
    assert str(AudioSegment("a.wav", 1.5, 2.0)) == "a.wav (1.5-3.5 s)"
    assert str(AudioSegment(b"RIFF...", 1)) == "the given bytes (1- s)"
    assert str(AudioSegment({"bytes": b"x", "path": "a.wav"})) == "a.wav"
    assert str(AudioSegment(SPEECH)) == "the given samples"

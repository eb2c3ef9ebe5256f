"""Files read ahead: order, batches by length, and what cannot be read."""

import gc
import threading
import time
import weakref

import numpy as np
import pytest
import soundfile

import citrinet
from citrinet.recognition.read_ahead import MAX_READERS, READ_AHEAD_S, WINDOW, ReadAhead, readers_for


@pytest.fixture
def files(tmp_path):
    """Forty recordings of many lengths, whose first sample tells which one it is, with a broken one among them."""
    lengths = np.random.default_rng(0).integers(400, 4000, 40)
    paths = []
    for number, length in enumerate(lengths):
        samples = np.zeros(length, np.float32)
        samples[0] = number / 100
        paths.append(str(tmp_path / f"{number:02d}.wav"))
        soundfile.write(paths[-1], samples, 16000, subtype="FLOAT")
    (tmp_path / "05.wav").write_text("no audio")
    return paths


@pytest.mark.parametrize(
    ("batch_size", "seconds"),
    [
        (1, None),
        (2, None),
        (3, None),
        (8, None),
        (100, None),
        (None, 0.5),
        (None, 0.0),
        (None, 1e-9),
        (None, 1e9),
        (3, 0.7),
    ],
)
@pytest.mark.parametrize("readers", [1, 4])
def test_results_come_in_the_order_of_the_files(files, batch_size, seconds, readers):
    limits = {"batch_size": batch_size, "batch_seconds": seconds}
    reader = ReadAhead(files, citrinet.load_audio, readers=readers, **limits)
    results = [pair for samples in reader for pair in reader.in_order({"number": round(100 * float(samples[0]))})]
    assert [index for index, _ in results] == [index for index in range(len(files)) if index != 5]
    assert all(result["number"] == index for index, result in results)
    assert [index for index, _ in reader.failed] == [5]
    assert "05.wav" in str(reader.failed[0][1])


def test_batches_hold_similar_lengths(files):
    reader = ReadAhead(files, citrinet.load_audio, batch_size=2)
    lengths = [len(samples) for samples in reader]
    first = lengths[: WINDOW * 2 - 1]  # one of them is broken
    assert first == sorted(first)
    assert 0 < reader.padding < 0.1
    by_seconds = ReadAhead(files, citrinet.load_audio, batch_seconds=0.5)
    lengths = [len(samples) for samples in by_seconds]
    assert lengths != sorted(lengths)  # eight batches at a time
    assert lengths[:20] == sorted(lengths[:20])
    assert 0 < by_seconds.padding < 0.1
    unsorted = ReadAhead(files, citrinet.load_audio, batch_size=1)
    assert len(list(unsorted)) == 39
    assert unsorted.padding == 0


def test_the_same_file_twice(files):
    reader = ReadAhead([files[0], files[1], files[0]], citrinet.load_audio, batch_size=3)
    results = [name for samples in reader for name, _ in reader.in_order({"length": len(samples)})]
    assert results == [0, 1, 2]


@pytest.fixture
def threads():
    """Threads that were started since, and are still there a moment later."""
    before = set(threading.enumerate())

    def left():
        end = time.monotonic() + 10
        while (new := set(threading.enumerate()) - before) and time.monotonic() < end:
            time.sleep(0.01)
        return new

    return left


@pytest.mark.slow
@pytest.mark.parametrize(
    "batches", [{"batch_size": 1}, {"batch_size": 2}, {"batch_size": 8}, {"batch_seconds": 60}, {"batch_seconds": 9e9}]
)
@pytest.mark.parametrize("seconds", [3600, 600, 7])
@pytest.mark.parametrize("readers", [1, 5])
def test_what_is_held_is_bounded_by_seconds(batches, seconds, readers, threads):
    """Whatever the length of the recordings: no more than half an hour of audio, and the one that goes beyond it."""
    rate, held, most, lock = 16000, [0.0], [], threading.RLock()  # collecting garbage may come in between

    class Counted(np.ndarray):  # as long as it says, without the memory
        def __del__(self):
            with lock:
                held[0] -= len(self) / rate

    def load(_):
        with lock:
            held[0] += seconds
            most.append(held[0])
        return np.broadcast_to(np.float32(0), seconds * rate).view(Counted)

    reader = ReadAhead(range(round(2.5 * READ_AHEAD_S / seconds) + 8), load, rate, readers=readers, **batches)
    for samples in reader:
        time.sleep(0.001)  # the thread goes as far as it may
        del samples
    assert max(most) <= READ_AHEAD_S + 2 * seconds  # one beyond the limit, and one that is being transcribed
    assert held[0] == 0 and len(most) == len(reader._sources)
    assert not threads()


def test_several_read_at_a_time_what_will_not_be_too_much(threads):
    together, most, lock = [0], [], threading.Lock()
    all_read = threading.Barrier(4, timeout=20)

    def count(change):
        with lock:
            together[0] += change
            most.append(together[0])

    def load(index):
        count(1)
        if 1 <= index <= 4:
            all_read.wait()  # for the other three
        count(-1)
        return np.zeros(100, np.float32)

    assert len(list(ReadAhead(range(9), load, readers=4))) == 9
    assert most[0] == 1 and max(most) == 4
    long = np.broadcast_to(np.float32(0), round(READ_AHEAD_S * 16000))
    most.clear()

    def load_long(_):
        count(1)
        time.sleep(0.01)
        count(-1)
        return long

    assert len(list(ReadAhead(range(5), load_long, readers=4))) == 5
    assert max(most) == 1
    assert not threads()


def test_who_reads_for_which_device(monkeypatch):
    monkeypatch.setattr("os.cpu_count", lambda: 64)
    assert [readers_for(device) for device in ("cpu", "cuda", "cuda:1")] == [1, MAX_READERS, MAX_READERS]
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    assert readers_for("cuda") == 2


@pytest.mark.parametrize("error", [RuntimeError("from below"), MemoryError(), ImportError("soxr"), SystemExit(3)])
def test_other_errors_are_raised_where_the_results_are_wanted(error, threads):
    def load(source):
        if source == 2:
            raise error
        return np.zeros(10, np.float32)

    with pytest.raises(type(error)) as caught:
        list(ReadAhead(range(5), load))
    assert caught.value is error
    del caught
    assert not threads()


def test_who_stops_early_stops_the_thread(threads):
    read = []

    def load(source):
        read.append(source)
        return np.zeros(100 * 16000, np.float32)

    waveforms = iter(ReadAhead(range(1000), load))
    next(waveforms)
    waveforms.close()
    assert not threads()
    assert len(read) < 30


@pytest.mark.slow
def test_errors_that_are_kept_hold_no_audio(threads):
    alive = []

    def check(samples):
        try:
            raise KeyError("cause")
        except KeyError as error:
            raise ValueError("NaN") from error

    def load(_):
        samples = np.zeros(1000, np.float32)
        alive.append(weakref.ref(samples))
        return check(samples)

    reader = ReadAhead(range(3), load)
    assert list(reader) == [] and [index for index, _ in reader.failed] == [0, 1, 2]
    assert not threads()
    gc.collect()
    assert not any(reference() is not None for reference in alive)
    assert reader.failed[0][1].__traceback__ is not None

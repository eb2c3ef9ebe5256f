"""Files read ahead: order, batches by length, and what cannot be read."""

import numpy as np
import pytest
import soundfile

import citrinet
from citrinet.recognition.read_ahead import WINDOW, ReadAhead


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


@pytest.mark.parametrize("batch_size", [1, 2, 3, 8, 100])
def test_results_come_in_the_order_of_the_files(files, batch_size):
    reader = ReadAhead(files, citrinet.load_audio, batch_size=batch_size)
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
    unsorted = ReadAhead(files, citrinet.load_audio, batch_size=1)
    assert len(list(unsorted)) == 39
    assert unsorted.padding == 0


def test_the_same_file_twice(files):
    reader = ReadAhead([files[0], files[1], files[0]], citrinet.load_audio, batch_size=3)
    results = [name for samples in reader for name, _ in reader.in_order({"length": len(samples)})]
    assert results == [0, 1, 2]

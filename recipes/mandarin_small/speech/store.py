"""Speech on disk: one file of samples, and an index of utterances."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

AUDIO, INDEX = "audio.int16", "index.npy"
_ROW = np.dtype([("id", np.int64), ("start", np.int64), ("length", np.int64)])


class SpeechStore:
    """
    Spoken utterances, memory-mapped.

    Args:
        folder: folder of a [`SpeechWriter`], finished or not.

    Attributes:
        index: one row per utterance: id, start and length in samples.
        audio: all samples, mono at 16 kHz, int16.

    Raises:
        OSError: if there is no speech.
    """

    def __init__(self, folder: str | Path):
        folder = Path(folder)
        self.index: NDArray[np.void] = np.load(folder / INDEX)
        empty = not len(self.index)
        self.audio: NDArray[np.int16] = (
            np.zeros(0, np.int16) if empty else np.memmap(folder / AUDIO, np.int16, mode="r")
        )
        self._rows = {int(number): row for row, number in enumerate(self.index["id"])}

    def __len__(self) -> int:
        return len(self.index)

    def __contains__(self, utterance_id: int) -> bool:
        return utterance_id in self._rows

    def __getitem__(self, utterance_id: int) -> NDArray[np.int16]:
        """Samples of an utterance, by its id; raises `KeyError` if it was not spoken."""
        row = self.index[self._rows[utterance_id]]
        return self.audio[row["start"] : row["start"] + row["length"]]


class SpeechWriter:
    """
    Context manager that appends utterances to a folder.

    The index is replaced atomically after the samples are written, so it is valid whenever the program is killed.
    Samples that are not in the index are cut off when the folder is opened again.

    Args:
        folder: the folder, created if needed.

    Attributes:
        ids: ids of all utterances in the folder.
        samples: total number of samples.
    """

    def __init__(self, folder: str | Path):
        self._folder = Path(folder)
        self._folder.mkdir(parents=True, exist_ok=True)
        audio, index = self._folder / AUDIO, self._folder / INDEX
        audio.touch()
        there = audio.stat().st_size // 2
        rows = np.load(index) if index.exists() else np.zeros(0, _ROW)
        rows = rows[rows["start"] + rows["length"] <= there]
        self._rows: list[tuple[int, int, int]] = rows.tolist()
        self.ids = {row[0] for row in self._rows}
        self.samples = max((start + length for _, start, length in self._rows), default=0)
        self._file = audio.open("r+b")
        self._file.truncate(2 * self.samples)
        self._file.seek(0, 2)
        self.save()

    def __enter__(self) -> "SpeechWriter":
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self.save()
        finally:
            self._file.close()

    def append(self, utterance_id: int, samples: NDArray[np.int16]) -> None:
        """Add an utterance; readers see it after [`save`]."""
        self._file.write(samples.tobytes())
        self._rows.append((utterance_id, self.samples, len(samples)))
        self.ids.add(utterance_id)
        self.samples += len(samples)

    def save(self) -> None:
        """Flush the samples, and write the index."""
        self._file.flush()
        unfinished = self._folder / f".{INDEX}.part"
        with unfinished.open("wb") as file:
            np.save(file, np.array(self._rows, _ROW))
        unfinished.replace(self._folder / INDEX)

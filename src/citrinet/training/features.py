"""Cache of features in a folder."""

import tempfile
from collections.abc import Iterator, MutableMapping
from pathlib import Path

import numpy as np
import numpy.typing as npt

Features = npt.NDArray[np.floating]


class FeatureFolder(MutableMapping[str, Features]):
    """
    Mapping of keys to arrays in a folder, one file each. Processes may share it: a file appears when it is complete.

    Args:
        folder: the folder, created if it does not exist.
    """

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)

    def _path(self, key: str) -> Path:
        return self.folder / key[:2] / f"{key}.npy"

    def __getitem__(self, key: str) -> Features:
        try:
            features: Features = np.load(self._path(key), allow_pickle=False)
        except FileNotFoundError:
            raise KeyError(key) from None
        return features

    def __setitem__(self, key: str, array: Features) -> None:
        path = self._path(key)
        path.parent.mkdir(exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, suffix=".part", delete=False) as part:
            np.save(part, array)
        Path(part.name).replace(path)

    def __delitem__(self, key: str) -> None:
        self._path(key).unlink()

    def __iter__(self) -> Iterator[str]:
        return (path.stem for path in self.folder.glob("*/*.npy"))

    def __len__(self) -> int:
        return sum(1 for _ in self)

"""Data sources of recipes: NeMo manifests and Hub datasets."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..manifest import ManifestEntry, read_manifest


def read_source(source: str | Path | dict[str, Any]) -> Iterator[ManifestEntry]:
    """
    Read the entries of a data source of a recipe.

    Args:
        source: a NeMo manifest, or a dataset on the Hub or on disk as keywords of `datasets.load_dataset` (`path`,
            `name`, `split`, ...), plus `audio_column` and `text_column` (default `audio` and `text`).

    Raises:
        OSError: if a manifest or a dataset cannot be read.
        ValueError: if a manifest is damaged, or a dataset lacks the split or the columns.
    """
    if isinstance(source, dict):
        yield from _dataset_entries(dict(source))
    else:
        yield from read_manifest(source)


def _dataset_entries(options: dict[str, Any]) -> Iterator[ManifestEntry]:
    from datasets import Audio, load_dataset

    audio, text = options.pop("audio_column", "audio"), options.pop("text_column", "text")
    if "path" not in options:
        raise ValueError(f"a dataset needs the key `path`; this one has {sorted(options)}.")
    if options.get("streaming"):
        raise ValueError(f"{options['path']}: training looks through all utterances first, leave `streaming` out.")
    try:
        with _audio_stored_as_it_is():
            dataset = load_dataset(**options)
    except TypeError as error:  # a keyword that `load_dataset` does not know
        raise ValueError(f"{options['path']} cannot be loaded: {error}") from error
    if isinstance(dataset, dict):
        raise ValueError(f"{options['path']} has the splits {sorted(dataset)}: name one with `split`.")
    columns = dataset.column_names
    missing = {audio, text} - set(columns)
    if missing:
        raise ValueError(
            f"{options['path']} has the columns {columns}, not {sorted(missing)}: name the right ones with "
            "`audio_column` and `text_column`."
        )
    for number, row in enumerate(dataset.cast_column(audio, Audio(decode=False))):
        recording, spoken, duration = row.pop(audio) or {}, row.pop(text), row.get("duration")
        yield ManifestEntry(
            recording.get("bytes") or Path(recording.get("path") or f"row {number}"),
            None if spoken is None else str(spoken),
            duration if isinstance(duration, (int, float)) else None,
            columns=row,
        )


@contextmanager
def _audio_stored_as_it_is() -> Iterator[None]:
    """
    Make `datasets` store the paths or bytes of recordings without torchcodec.

    From version 4 on it requires torchcodec for that, although nothing is decoded, so that folders of audio files could
    not be read without it.
    """
    from datasets import Audio

    original = Audio.encode_example

    def encode_example(self: Audio, value: Any) -> Any:
        if isinstance(value, (str, Path)):
            return {"bytes": None, "path": str(value)}
        if isinstance(value, (bytes, bytearray)):
            return {"bytes": bytes(value), "path": None}
        if isinstance(value, dict) and not value.keys() - {"bytes", "path"}:
            is_here = value.get("path") is not None and Path(value["path"]).is_file()
            return {"bytes": None if is_here else value.get("bytes"), "path": value.get("path")}
        return original(self, value)

    Audio.encode_example = encode_example
    try:
        yield
    finally:
        Audio.encode_example = original

"""
Transcribe large datasets on a cluster with Ray Data.

```python
>>> recordings = ray.data.from_items([{"audio": "/data/1.flac"}, {"audio": "s3://bucket/2.flac"}])
>>> results = citrinet.ray.transcribe(recordings, "my-model", workers=(1, 8))
>>> citrinet.ray.write(results, "transcripts")
```
"""

import importlib
import importlib.util
import json
import math
import re
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from .audio_segment_citrinet import AudioSegment
from .language_model import DecodingOptions

PLACE = ("audio", "offset", "duration", "channel")  # columns that identify a recording
RESULT = ("text", "transcript", "confidence")
NESTED = ("entities", "tags", "segments", "chunks")  # as JSON, because an Arrow column has a single type
ROWS_AT_ONCE = 64  # rows that a worker reads ahead and sorts by length
SHARD_ROWS, SHARD_S = 1000, 60.0  # a shard is finished after so many rows or seconds
KINDS = {"json": ".jsonl", "parquet": ".parquet"}


def transcribe(
    dataset: Any,
    model: str,
    *,
    precision: str = "float32",
    workers: int | tuple[int, int] = 1,
    cpus: float = 1,
    gpus: float = 0,
    batch_size: int | None = None,
    batch_seconds: float | None = 60.0,
    decoding: DecodingOptions | None = None,
    **options: Any,
) -> Any:
    """
    Transcribe a dataset with several workers, each with its own recogniser.

    Args:
        dataset (`ray.data.Dataset`): rows with `audio`, a path, a URL (`s3://` and others that PyArrow reads) or the
            bytes of a file; optionally with `offset` and `duration` in seconds and `channel`.
        model: see [`load_recognizer`]; every machine must have access to it.
        precision: see [`load_recognizer`].
        workers: number of workers, or the smallest and the largest number, between which Ray scales.
        cpus, gpus: CPUs and GPUs of each worker. A worker with a GPU computes on it.
        batch_size, batch_seconds: see [`Recognizer.stream`].
        decoding: options of decoding, see [`load_recognizer`].
        **options: further arguments of [`Recognizer.stream`].

    Returns:
        `ray.data.Dataset`: the rows of `dataset` with `text`, `transcript`, `confidence`; `entities`, `tags`,
        `segments` and `chunks` as JSON; and `error`, the reason why a recording could not be read. It is computed
        lazily.

    Raises:
        ImportError: if Ray is not installed.
        ValueError: if `workers` is invalid or the cluster has no room for the smallest number of workers.
    """
    data, ray = _library("ray.data"), _library("ray")
    fewest, most = (workers, workers) if isinstance(workers, int) else workers
    if not 1 <= fewest <= most:
        raise ValueError(f"`workers` must be a number from 1, or the fewest and the most, not {workers}.")
    _check_cluster(ray, fewest, cpus, gpus)
    device, threads = "cuda" if gpus else "cpu", max(int(cpus), 1)
    settings = {"precision": precision, "device": device, "decoder": decoding, "threads": threads}
    limits = {"batch_size": batch_size, "batch_seconds": batch_seconds}
    return dataset.map_batches(
        _Worker,
        fn_constructor_args=(model, settings, {**limits, **options}),
        batch_size=ROWS_AT_ONCE,
        compute=data.ActorPoolStrategy(min_size=fewest, max_size=most),
        num_cpus=cpus,
        num_gpus=gpus,
    )


def write(results: Any, folder: str | Path, kind: str = "json", total: int | None = None) -> int:
    """
    Write results as they are computed, in shards that appear when they are complete.

    Args:
        results (`ray.data.Dataset`): dataset returned by [`transcribe`].
        folder: output folder, created if it does not exist; existing shards are kept.
        kind: `"json"` (JSON lines) or `"parquet"`.
        total: expected number of rows, for the progress bar.

    Returns:
        Number of recordings that could not be read.
    """
    place, failed = Path(folder), 0
    place.mkdir(parents=True, exist_ok=True)
    with tqdm(total=total, unit="file", disable=None) as progress:
        for rows in _shards(results.iter_rows(), progress):
            _write_shard(rows, place, kind)
            failed += sum(row["error"] is not None for row in rows)
    return failed


def written(folder: str | Path) -> set[tuple[Any, ...]]:
    """Return the recordings whose results are in a folder, each as the values of `PLACE`."""
    found = set()
    for path in sorted(Path(folder).glob("part-*")):
        if path.suffix == KINDS["parquet"]:
            rows = _library("pyarrow.parquet").read_table(path).to_pylist()
        else:
            rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        found |= {tuple(row.get(name) for name in PLACE) for row in rows}
    return found


def list_audio(address: str, suffixes: Iterable[str]) -> list[str]:
    """
    List the recordings below a URL such as `s3://bucket/folder`, with PyArrow's file systems.

    Raises:
        OSError: if the URL cannot be read.
        ValueError: if there are no recordings.
    """
    fs = _library("pyarrow.fs")
    system, path = fs.FileSystem.from_uri(address)
    entries = system.get_file_info(fs.FileSelector(path, recursive=True))
    kept = tuple(suffixes)
    prefix = address.rstrip("/").removesuffix(path.rstrip("/"))
    files = sorted(prefix + entry.path for entry in entries if entry.is_file and entry.path.lower().endswith(kept))
    if not files:
        raise ValueError(f"{address}: no audio files there.")
    return files


def is_remote(source: str) -> bool:
    """Whether a source is a URL for PyArrow, such as `s3://`, and not http(s)."""
    return re.match(r"[a-z][a-z0-9+.-]+://", source) is not None and not source.startswith(("http://", "https://"))


class _Worker:
    """An actor: loads a recogniser once, and transcribes batches of rows."""

    def __init__(self, model: str, settings: dict[str, Any], options: dict[str, Any]):
        from .recognition import load_recognizer

        threads = settings.pop("threads")
        if importlib.util.find_spec("torch"):
            import torch

            torch.set_num_threads(threads)
        self._recognizer = load_recognizer(model, **settings)
        self._options = options

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, Any]:
        from .recognition import ReadAhead

        sources = [_segment(row) for row in _rows(batch)]
        limits: Any = {name: self._options[name] for name in ("batch_size", "batch_seconds")}
        ahead = ReadAhead(sources, self._load, self._recognizer.sampling_rate, **limits)
        results: dict[int, Any] = {}
        for result in self._recognizer.stream(iter(ahead), **self._options):
            results.update(ahead.in_order(result))
        errors = {index: str(error) for index, error in ahead.failed}
        columns: dict[str, Any] = {name: list(values) for name, values in batch.items()}
        for name in RESULT:
            columns[name] = [results[i][name] if i in results else None for i in range(len(sources))]
        for name in NESTED:
            columns[name] = [_as_json(results.get(i, {}).get(name)) for i in range(len(sources))]
        columns["error"] = [errors.get(i) for i in range(len(sources))]
        return columns

    def _load(self, segment: AudioSegment) -> np.ndarray:
        source = segment.source
        if isinstance(source, str) and is_remote(source):
            system, path = _library("pyarrow.fs").FileSystem.from_uri(source)
            with system.open_input_stream(path) as file:
                segment = AudioSegment(file.read(), segment.offset, segment.duration, segment.channel)
        return self._recognizer.load(segment)


def _rows(batch: dict[str, np.ndarray]) -> Iterator[dict[str, Any]]:
    names = [name for name in PLACE if name in batch]
    for values in zip(*(batch[name].tolist() for name in names), strict=True):
        yield dict(zip(names, values, strict=True))


def _segment(row: dict[str, Any]) -> AudioSegment:
    given = {name: value for name, value in row.items() if not (value is None or value != value)}  # NaN: not given
    channel = given.get("channel")
    return AudioSegment(
        given["audio"],
        float(given.get("offset", 0.0)),
        given.get("duration"),
        None if channel is None else int(channel),
    )


def _shards(rows: Iterable[dict[str, Any]], progress: Any) -> Iterator[list[dict[str, Any]]]:
    shard: list[dict[str, Any]] = []
    begun = time.monotonic()
    for row in rows:
        shard.append(row)
        progress.update()
        if len(shard) >= SHARD_ROWS or time.monotonic() - begun > SHARD_S:
            yield shard
            shard, begun = [], time.monotonic()
    if shard:
        yield shard


def _write_shard(rows: list[dict[str, Any]], folder: Path, kind: str) -> None:
    """Write a shard under the next free number; it is written to a temporary file and then renamed."""
    taken = [int(path.stem.split("-")[1]) for path in folder.glob("part-*") if path.stem.split("-")[1].isdigit()]
    path = folder / f"part-{max(taken, default=-1) + 1:06}{KINDS[kind]}"
    scratch = folder / f".{path.name}.incomplete"
    plain = [{name: _plain(value) for name, value in row.items()} for row in rows]
    if kind == "parquet":
        _library("pyarrow.parquet").write_table(_library("pyarrow").Table.from_pylist(plain), scratch)
    else:
        nested = ({**row, **{name: json.loads(row[name]) for name in NESTED if row.get(name)}} for row in plain)
        scratch.write_text("".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in nested), encoding="utf-8")
    scratch.replace(path)


def _plain(value: Any) -> Any:
    """Convert a value for JSON; NaN, which marks missing values in numeric columns, becomes `None`."""
    value = value.item() if isinstance(value, np.generic) else value
    return None if isinstance(value, float) and math.isnan(value) else value


def _as_json(value: Any) -> str | None:
    return None if value is None else json.dumps(value, ensure_ascii=False)


def _check_cluster(ray: Any, fewest: int, cpus: float, gpus: float) -> None:
    """Raise ValueError if the cluster has no room for `fewest` workers; Ray would wait for it forever."""
    if not ray.is_initialized():
        ray.init()
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    fits = [
        min(node.get("CPU", 0) // cpus if cpus else math.inf, node.get("GPU", 0) // gpus if gpus else math.inf)
        for node in nodes
    ]
    if sum(fits) < fewest:
        has = ", ".join(f"{node.get('CPU', 0):g} CPUs and {node.get('GPU', 0):g} GPUs" for node in nodes)
        raise ValueError(
            f"the cluster has no room for {fewest} workers of {cpus:g} CPUs and {gpus:g} GPUs: its machines have {has}."
        )


def _library(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name.split(".")[0]:
            raise
        raise ImportError(f'a cluster needs {error.name}: pip install "citrinet[ray]"') from error


__all__ = ["is_remote", "list_audio", "transcribe", "write", "written"]

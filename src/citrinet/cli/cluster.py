"""`citrinet transcribe --ray`: transcribe recordings on many machines."""

import argparse
import logging
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .options import decoding_options, positive
from .outputs import describe
from .sources import AUDIO_SUFFIXES, find_sources

KINDS = ("json", "parquet")


def add_cluster(parser: argparse.ArgumentParser) -> None:
    """Add `--ray` and its options."""
    group = parser.add_argument_group("on a cluster")
    group.add_argument(
        "--ray", nargs="?", const="local", metavar="ADDRESS",
        help="transcribe on the Ray cluster at ADDRESS, or without ADDRESS on this machine, into shards in --output; "
        "recordings that are in the shards already are skipped; inputs may be URLs such as s3://bucket/folder",
    )  # fmt: skip
    group.add_argument("--parquet", action="store_true", help="write shards as Parquet instead of JSON lines")
    group.add_argument(
        "--workers", type=_bounds, default=(1, 1), metavar="N|MIN-MAX",
        help="number of workers, each with its own recogniser; without --ray, processes of this machine (default 1)",
    )  # fmt: skip
    group.add_argument("--worker-cpus", type=positive, default=1, metavar="N", help="CPU cores per worker (default 1)")
    group.add_argument("--worker-gpus", type=float, default=0.0, metavar="N", help="GPUs per worker (default 0)")


def run(options: argparse.Namespace) -> int:
    """Run the command on a cluster."""
    from .. import ray as cluster

    if options.output is None or options.beside:
        raise ValueError("--ray writes shards: give --output DIR.")
    if not options.parquet and options.format not in ("text", "json"):
        raise ValueError(f"--ray writes JSON lines or --parquet, not {options.format}.")
    rows = _rows(options.paths, options.channel)
    done = cluster.written(options.output)
    missing = [row for row in rows if tuple(row[name] for name in cluster.PLACE) not in done]
    if not missing:
        print(f"all {len(rows)} recordings are in {options.output}")
        return 0
    ray, data = _connect(options.ray)
    try:
        results = cluster.transcribe(
            data.from_items(missing),
            options.model,
            precision=options.precision,
            workers=options.workers,
            cpus=options.worker_cpus,
            gpus=options.worker_gpus,
            batch_size=options.batch_size,
            batch_seconds=options.batch_seconds or (None if options.batch_size else 60.0),
            decoding=decoding_options(options),
            return_timestamps=options.timestamps,
            chunk_length_s=options.chunk_length,
            vad=options.vad,
        )
        failed = cluster.write(results, options.output, KINDS[options.parquet], len(missing))
    finally:
        ray.shutdown()
    print(f"{len(missing)} recordings in {options.output}, {failed} of them with an error")
    return 1 if failed else 0


def _rows(paths: Sequence[str], channel: int | str | None) -> list[dict[str, Any]]:
    """A row for each recording; local files by their absolute path, since workers have other working directories."""
    from ..ray import is_remote, list_audio

    if channel == "all":
        raise ValueError("--channel all is not for clusters: give a manifest with channel_selector.")
    rows: list[dict[str, Any]] = []
    for path in paths:
        if is_remote(path):
            names = [{"audio": name} for name in list_audio(path, AUDIO_SUFFIXES)]
        else:
            names = [describe(source) for source in find_sources(path, channel if isinstance(channel, int) else None)]
        rows += [{"offset": 0.0, "duration": None, "channel": None, **name} for name in names]
    for row in rows:
        if Path(row["audio"]).is_file():
            row["audio"] = str(Path(row["audio"]).absolute())
    return rows


def _connect(address: str) -> tuple[Any, Any]:
    try:
        import ray
        from ray import data
    except ModuleNotFoundError as error:
        raise ImportError(f'a cluster needs {error.name}: pip install "citrinet[ray]"') from error
    _check_address(address)
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except ConnectionError as error:
        raise OSError(f"there is no Ray cluster at {address!r}: {error}") from error
    data.DataContext.get_current().enable_progress_bars = False  # ours counts recordings
    return ray, data


def _check_address(address: str) -> None:
    """Check within seconds that a host accepts connections; Ray itself takes minutes to fail."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host:  # `local` and `auto`
        return
    if not port.isdecimal():
        raise ValueError(f"{address!r} is no address of a Ray cluster, such as 10.0.0.1:6379.")
    try:
        socket.create_connection((host, int(port)), timeout=10).close()
    except OSError as error:
        raise OSError(f"there is no Ray cluster at {address!r}: {error}") from error


def _bounds(text: str) -> tuple[int, int]:
    low, _, high = text.partition("-")
    return positive(low), positive(high or low)

"""
Measure the cost of Ray: the speed of workers with one core each, compared with one thread without Ray.

    python benchmarks/cluster.py MANIFEST.jsonl [--workers 1 2]

Start-up is not counted: time runs from the first result on, without the batch that it came with.
"""

import argparse
import time

import ray
import torch

import citrinet
import citrinet.ray as cluster
from citrinet.manifest import read_manifest
from citrinet.recognition import ReadAhead

BATCH_SECONDS = 60.0


def main() -> None:
    """Print a line for one thread, and one for each number of workers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("manifest")
    parser.add_argument("--workers", type=int, nargs="*", default=[1, 2])
    options = parser.parse_args()
    segments = [entry.segment for entry in read_manifest(options.manifest)]
    torch.set_num_threads(1)
    recognizer = citrinet.load_recognizer(citrinet.default_model())
    ahead = ReadAhead(segments, recognizer.load, recognizer.sampling_rate, batch_seconds=BATCH_SECONDS)
    start = time.perf_counter()
    for result in recognizer.stream(iter(ahead), batch_seconds=BATCH_SECONDS):
        list(ahead.in_order(result))
    print(f"one thread: {ahead.seconds / (time.perf_counter() - start):.0f} times real time")
    files = [str(segment.source) for segment in segments]
    for workers in options.workers:
        print(f"{workers} workers: {rate(files, ahead.seconds, workers):.0f} times real time")


def rate(files: list[str], seconds: float, workers: int) -> float:
    """Seconds of speech per second, with workers of one core each."""
    ray.init(num_cpus=workers + 1, log_to_driver=False)
    try:
        rows = ray.data.from_items([{"audio": file} for file in files])
        workers_of_one_core = {"workers": workers, "batch_seconds": BATCH_SECONDS}
        results = iter(cluster.transcribe(rows, citrinet.default_model(), **workers_of_one_core).iter_rows())
        next(results)
        start = time.perf_counter()
        rest = sum(1 for _ in results) + 1 - cluster.ROWS_AT_ONCE
        return seconds * rest / len(files) / (time.perf_counter() - start)
    finally:
        ray.shutdown()


if __name__ == "__main__":
    main()

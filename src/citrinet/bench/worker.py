"""
A contestant: a process that transcribes noise on request, and reports the time and memory that it took.

    python -m citrinet.bench.worker '{"model": "my-model", "precision": "int8"}'

A question is a line of JSON on standard input, `[recordings, seconds of each]`; an answer is a line on standard output,
`answer: [seconds, peak memory in GB or null]`. The first answer, `answer: ready`, says that the model is loaded. This
file imports nothing of the package at the top, because `nemo_worker.py` uses it where the package is not installed.
"""

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

ANSWER = "answer: "
Transcribe = Callable[[list[Any]], object]


def serve(transcribe: Transcribe, sampling_rate: int) -> None:
    """
    Answer questions until standard input ends.

    Args:
        transcribe: function that transcribes a list of waveforms (n,), float32.
        sampling_rate: sampling rate of the waveforms in Hz.
    """
    transcribe([noise(1.0, sampling_rate)])  # kernels are compiled here, while the other contestants start
    print(ANSWER + "ready", flush=True)
    for line in sys.stdin:
        count, seconds = json.loads(line)
        audio = [noise(seconds, sampling_rate)] * count
        transcribe(audio)  # warm up: other processes have used the caches meanwhile
        start = time.perf_counter()
        transcribe(audio)
        print(ANSWER + json.dumps([time.perf_counter() - start, peak_memory()]), flush=True)


def noise(seconds: float, sampling_rate: int) -> Any:
    """Brown noise (n,) float32, the same every time."""
    samples = np.random.default_rng(0).standard_normal(round(seconds * sampling_rate)).cumsum()
    samples -= samples.mean()
    return (0.3 * samples / np.abs(samples).max()).astype(np.float32)


def peak_memory() -> "float | None":
    """Peak memory of this process in GB, on a GPU if it uses one; `None` if the system does not report it."""
    torch: Any = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        return float(torch.cuda.max_memory_reserved()) / 1e9
    status = Path("/proc/self/status")
    if status.is_file():  # `ru_maxrss` includes the parent's memory at the fork
        return next(int(line.split()[1]) * 1024 / 1e9 for line in status.open() if line.startswith("VmHWM"))
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e9 if sys.platform == "darwin" else peak * 1024 / 1e9


def main(options: dict[str, Any]) -> None:
    """
    Serve a model of this package.

    Args:
        options: arguments of [`load_recognizer`], and `compiled`, whether to use `torch.compile` (on a GPU, with CUDA
            graphs).
    """
    from citrinet import load_recognizer
    from citrinet.recognition.transformers_recognizer import CitrinetRecognizer

    compiled = options.pop("compiled", False)
    recognizer = load_recognizer(**options)
    if compiled and isinstance(recognizer, CitrinetRecognizer):
        network: Any = recognizer.pipeline.model
        network.compile(mode="reduce-overhead")

    def transcribe(audio: list[Any]) -> object:
        # Without cutting at pauses, as NeMo: noise has none, and finding that out takes time.
        return list(recognizer.stream(iter(audio), batch_size=len(audio), vad=False))

    serve(transcribe, recognizer.sampling_rate)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))

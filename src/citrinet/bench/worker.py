"""
A contestant: a process that transcribes noise when it is asked to, and says what that took.

    python -m citrinet.bench.worker '{"model": "my-model", "precision": "int8"}'

A question is a line of JSON on standard input, `[recordings, seconds of each]`; an answer is a line on standard output,
`answer: [seconds, peak memory in GB or null]`. A first answer, `answer: ready`, says that the model is loaded. Nothing
of this package is imported at the top, since `nemo_worker.py` uses this file where the package is not installed.
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
    Answer questions until there are no more.

    Args:
        transcribe: takes a list of waveforms (n,), float32.
        sampling_rate: of the waveforms, in Hz.
    """
    print(ANSWER + "ready", flush=True)
    for line in sys.stdin:
        count, seconds = json.loads(line)
        audio = [noise(seconds, sampling_rate)] * count
        transcribe(audio)  # while others worked, they had the caches
        start = time.perf_counter()
        transcribe(audio)
        print(ANSWER + json.dumps([time.perf_counter() - start, peak_memory()]), flush=True)


def noise(seconds: float, sampling_rate: int) -> Any:
    """(n,) float32: brown noise, the same every time."""
    samples = np.random.default_rng(0).standard_normal(round(seconds * sampling_rate)).cumsum()
    samples -= samples.mean()
    return (0.3 * samples / np.abs(samples).max()).astype(np.float32)


def peak_memory() -> "float | None":
    """GB that this process took at most, of a GPU's memory if it uses one; none where the system does not say."""
    torch: Any = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        return float(torch.cuda.max_memory_reserved()) / 1e9
    status = Path("/proc/self/status")
    if status.is_file():  # `ru_maxrss` counts what the parent had when it forked, too
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
        options: arguments of [`load_recognizer`], and `compiled`, whether `torch.compile` compiles the network (on a
            GPU, into CUDA graphs).
    """
    from citrinet import load_recognizer
    from citrinet.recognition.transformers_recognizer import CitrinetRecognizer

    compiled = options.pop("compiled", False)
    recognizer = load_recognizer(**options)
    if compiled and isinstance(recognizer, CitrinetRecognizer):
        network: Any = recognizer.pipeline.model
        network.compile(mode="reduce-overhead")
    serve(lambda audio: list(recognizer.stream(iter(audio), batch_size=len(audio))), recognizer.sampling_rate)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))

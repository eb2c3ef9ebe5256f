"""
Measure how fast the CPU decodes: from the outputs of the network to results, on one core.

    python benchmarks/decoding.py examples/*.flac
    python benchmarks/decoding.py --lm own examples/*.flac

On a GPU this is done while the GPU works on the next batch.
"""

import argparse
import time
from typing import Any

import citrinet
from citrinet.language_model import DecodingOptions

ROUNDS = 20


def main() -> None:
    """Read the command line, and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+")
    parser.add_argument("--model", default=citrinet.default_model())
    parser.add_argument("--lm", default="none", help="as in `citrinet transcribe` (default: none)")
    options = parser.parse_args()
    recognizer = citrinet.load_recognizer(options.model, decoder=DecodingOptions(language_model=options.lm))
    pipe: Any = recognizer.pipeline
    decode, outputs, seconds = pipe.postprocess, [], 0.0

    def keep(parts: list[dict[str, Any]], **arguments: Any) -> Any:
        outputs.append(parts)
        return decode(parts, **arguments)

    pipe.postprocess = keep
    for file in options.files:
        waveform = recognizer.load(file)
        seconds += len(waveform) / recognizer.sampling_rate
        recognizer(waveform)
    best = min(_time(decode, outputs) for _ in range(ROUNDS))
    each, length = 1000 * best / len(outputs), seconds / len(outputs)
    print(f"{each:.2f} ms a recording of {length:.1f} s, {seconds / best:.0f}x real time")


def _time(decode: Any, outputs: list[Any]) -> float:
    start = time.perf_counter()
    for parts in outputs:
        decode(parts)
    return time.perf_counter() - start


if __name__ == "__main__":
    main()

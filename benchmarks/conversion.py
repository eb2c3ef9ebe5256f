"""
Measure time and memory of converting a `.nemo` file, of exporting it again, and of NeMo's `restore_from`.

    python benchmarks/conversion.py FILE.nemo [--nemo-python PATH]

Instead of a file, give a size of `citrinet bench`, such as stt_meta_zh_150m, for random weights.

NeMo usually has its own environment, whose interpreter `--nemo-python` names. Each run is a new process; they take
turns, imports are not counted, and medians are printed.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from citrinet import bench
from citrinet.bench import SIZES, model_folder
from citrinet.convert import convert_nemo, export_nemo

MEASURE = """
import json, sys, tempfile, time
sys.path.append({workers!r})
from worker import peak_memory
{imports}
start = time.perf_counter()
{work}
print(json.dumps([time.perf_counter() - start, peak_memory() or float('nan')]))
"""
WORKERS = str(Path(bench.__file__).parent)  # NeMo's interpreter has NumPy, but not this package
OURS = MEASURE.format(
    workers=WORKERS,
    imports="from citrinet.convert import convert_nemo",
    work="with tempfile.TemporaryDirectory() as folder:\n    convert_nemo(sys.argv[1], folder + '/out')",
)
EXPORT = MEASURE.format(
    workers=WORKERS,
    imports="from citrinet.convert import export_nemo",
    work="with tempfile.TemporaryDirectory() as folder:\n    export_nemo(sys.argv[1], folder + '/out.nemo')",
)
NEMO = MEASURE.format(
    workers=WORKERS,
    imports="from nemo.collections.asr.models import ASRModel",
    work="ASRModel.restore_from(sys.argv[1], map_location='cpu', strict=False)",
)


def run(python: str, code: str, model: str) -> list[float]:
    """Seconds and gigabytes of one new process."""
    done = subprocess.run([python, "-c", code, model], capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    """Run the contenders in turn, and print medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("nemo_file")
    parser.add_argument("--nemo-python", help="Python interpreter of an environment with NeMo")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        nemo_file = options.nemo_file
        if nemo_file in SIZES:
            with model_folder(nemo_file) as model:
                nemo_file = str(export_nemo(model, f"{folder}/model.nemo", tag_heads=False).output)
        converted = str(convert_nemo(nemo_file, f"{folder}/model").output)
        contenders = {
            "citrinet convert": (sys.executable, OURS, nemo_file),
            "citrinet export nemo": (sys.executable, EXPORT, converted),
        }
        if options.nemo_python:
            contenders["NeMo restore_from"] = (options.nemo_python, NEMO, nemo_file)
        figures: dict[str, list[list[float]]] = {name: [] for name in contenders}
        for _ in range(options.rounds):
            for name, contender in contenders.items():
                figures[name].append(run(*contender))
    for name, rounds in figures.items():
        seconds, gigabytes = (statistics.median(values) for values in zip(*rounds, strict=True))
        print(f"{name}: {seconds:.1f} s, peak {gigabytes:.2f} GB")


if __name__ == "__main__":
    main()

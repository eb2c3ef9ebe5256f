"""
Measure the cost of `citrinet transcribe` in addition to the network: start-up, many files, and long files.

    python benchmarks/transcribe.py --model MODEL --folder CLIPS --long HOUR.flac HALF_AN_HOUR.flac
    python benchmarks/transcribe.py --model MODEL --folder CLIPS --device cuda --precision bfloat16 --batch-seconds 640

Measured for each precision, in separate processes: seconds to import the package after PyTorch, to load the model (the
second time, with the file cached) and to transcribe the first clip for the first time; on a folder, the speed of the
whole command relative to that of the network alone on the same batches; seconds and peak memory of long recordings.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

from citrinet.bench import model_folder
from citrinet.optimized import PRECISIONS

START = """
import json, sys, time
import torch
model, precision, device, clip = sys.argv[1:]
times = [time.perf_counter()]
import citrinet
times.append(time.perf_counter())
citrinet.load_recognizer(model, precision=precision, device=device)
times.append(time.perf_counter())
recognizer = citrinet.load_recognizer(model, precision=precision, device=device)
times.append(time.perf_counter())
recognizer(clip)
times.append(time.perf_counter())
recognizer(clip)
times.append(time.perf_counter())
steps = [after - before for before, after in zip(times, times[1:])]
print(json.dumps({"import": steps[0], "load": steps[2], "first": steps[3], "second": steps[4]}))
"""
FOLDER = """
import json, sys, time
import torch
import citrinet
from citrinet.recognition import ReadAhead, readers_for
model, precision, device, batch_seconds, *files = sys.argv[1:]
limit = {"batch_seconds": float(batch_seconds)} if float(batch_seconds) else {"batch_size": 8}
recognizer = citrinet.load_recognizer(model, precision=precision, device=device)
recognizer(files[0])
network, batches = recognizer.pipeline.model, []
hook = network.register_forward_pre_hook(lambda _, args, kwargs: batches.append(kwargs), with_kwargs=True)
for _ in range(1 if device == "cpu" else 2):  # a GPU's first time makes kernels
    batches.clear()
    start = time.perf_counter()
    reader = ReadAhead(files, recognizer.load, recognizer.sampling_rate, readers=readers_for(device), **limit)
    texts = [done for result in recognizer.stream(iter(reader), **limit) for done in reader.in_order(result)]
    whole = time.perf_counter() - start
hook.remove()
start = time.perf_counter()
with torch.inference_mode():
    for batch in batches:
        logits = network(**batch).logits
    logits.flatten()[0].item()  # waits until all is done
alone = time.perf_counter() - start
speed = {"seconds": reader.seconds, "whole": whole, "alone": alone, "padding": reader.padding}
print(json.dumps({"files": len(texts), **speed}))
"""
LONG = """
import json, sys, time
from citrinet.bench.worker import peak_memory
from citrinet.cli import main
start = time.perf_counter()
model, precision, device, file = sys.argv[1:]
code = main(["transcribe", "--json", "--model", model, "--precision", precision, "--device", device, file])
print(json.dumps({"code": code, "elapsed": time.perf_counter() - start, "peak": peak_memory() or float("nan")}))
"""


def main() -> None:
    """Read the command line, and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="model, or a size of `citrinet bench`")
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--long", nargs="*", default=[], metavar="FILE")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", action="append", help="precision, may be repeated (default: all of a CPU)")
    parser.add_argument("--batch-seconds", default="0", metavar="S", help="batches of the folder (default: of 8 files)")
    options = parser.parse_args()
    with model_folder(options.model) as model:
        measure(model, options)


def measure(model: str, options: argparse.Namespace) -> None:
    """Print the measurements of each precision."""
    clips = sorted(str(path) for path in options.folder.iterdir())
    for precision in options.precision or PRECISIONS:
        start = run(START, model, precision, options.device, clips[0])
        print(precision, "start:", ", ".join(f"{name} {seconds:.2f} s" for name, seconds in start.items()), flush=True)
        folder = run(FOLDER, model, precision, options.device, options.batch_seconds, *clips)
        kept = folder["alone"] / folder["whole"]
        speed = folder["seconds"] / folder["whole"]
        print(
            f"{precision} folder: {folder['files']} files, {speed:.0f}x real time, {kept:.0%} of the network alone, "
            f"{folder['padding']:.1%} padding",
            flush=True,
        )
        for file in options.long:
            long = run(LONG, model, precision, options.device, file)
            print(
                f"{precision} {Path(file).name}: {long['elapsed']:.1f} s, peak {long['peak'] or float('nan'):.2f} GB",
                flush=True,
            )


def run(script: str, *arguments: str) -> dict:
    """Run a script, and return the JSON of its last line."""
    command = [sys.executable, "-c", script, *arguments]
    process = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(process.stdout.splitlines()[-1])


if __name__ == "__main__":
    main()

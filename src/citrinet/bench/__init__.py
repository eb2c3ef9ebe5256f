"""
Speed of a model on this machine, in every precision and beside others, from waveform to text.

For every case each contestant lives in a process of its own: peak memory is its own, and what an earlier case left
behind (an allocator keeps more of what it frees after it has seen large blocks) changes no later one. They are asked in
turn, round by round, and only one works at a time.
"""

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode
from tqdm.auto import tqdm
from transformers import AutoConfig, AutoModelForCTC

from ..optimized import PRECISIONS, linear_for

CASES = {"1 x 10 s": (1, 10), "8 x 10 s": (8, 10), "1 x 60 s": (1, 60)}
RATE = 16_000

_WORKER = """
import json, resource, sys, time
import numpy as np

{setup}

noise = np.random.default_rng(0).standard_normal(16000 * 60).astype(np.float32).cumsum()
noise = 0.3 * (noise - noise.mean()) / np.abs(noise - noise.mean()).max()
print("answer:", flush=True)
def peak():  # in kB; `ru_maxrss` counts what the parent had when it forked, too
    try:
        return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM"))
    except FileNotFoundError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for line in sys.stdin:
    count, seconds = json.loads(line)
    audio = [noise[: seconds * 16000]] * count
    transcribe(audio)  # while others worked, they had the caches
    start = time.perf_counter()
    transcribe(audio)
    print("answer:", json.dumps([time.perf_counter() - start, peak() * 1024 / 1e9]), flush=True)
"""
_OURS = """
import torch
from transformers import AutoModelForCTC, AutoProcessor
import citrinet
from citrinet.optimized import CitrinetInferenceConfig

device = torch.device({device!r})
model = AutoModelForCTC.from_pretrained({model!r}, {argument}).eval().to(device)
network = torch.compile(model, mode="reduce-overhead") if {compiled} else model  # with CUDA graphs
processor = AutoProcessor.from_pretrained({model!r})

@torch.inference_mode()
def transcribe(audio):
    inputs = processor(audio, sampling_rate=16000).to(device)
    return processor.batch_decode(network(**inputs).logits.argmax(-1).cpu())
"""
_NEMO = """
import torch
from nemo.collections.asr.models import ASRModel

model = ASRModel.restore_from({file!r}, map_location="cpu", strict=True).eval()

@torch.inference_mode()
def transcribe(audio):
    lengths = torch.tensor([len(samples) for samples in audio])
    log_probs, lengths, _ = model(input_signal=torch.from_numpy(np.stack(audio)), input_signal_length=lengths)
    return model.decoding.ctc_decoder_predictions_tensor(log_probs, decoder_lengths=lengths)
"""
_ONNX = """
import citrinet

model = citrinet.CitrinetOnnx({folder!r})

def transcribe(audio):
    return model(audio)
"""


@dataclass
class Figures:
    """
    What one contestant took for one case.

    Args:
        seconds: of every round.
        speech: seconds of speech in the case.
        gflop: billions of floating-point operations of the network in it.
    """

    seconds: list[float] = field(default_factory=list)
    speech: float = 0.0
    gflop: float = 0.0

    @property
    def median(self) -> float:
        """Seconds."""
        return statistics.median(self.seconds)


@dataclass
class Benchmark:
    """
    What was measured.

    Args:
        model: its name.
        threads: that PyTorch uses.
        figures: contestant -> case -> [`Figures`].
        memory: contestant -> peak GB of its largest process.
        ceiling: precision -> GFLOP/s of a large matrix product on this CPU, measured in the same rounds.
    """

    model: str
    threads: int
    figures: dict[str, dict[str, Figures]]
    memory: dict[str, float]
    ceiling: dict[str, float]

    def __str__(self) -> str:
        return "\n".join(_table(self))

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)


def bench(
    model: str,
    against: list[str] | None = None,
    rounds: int = 5,
    nemo_python: str = sys.executable,
    device: str = "cpu",
) -> Benchmark:
    """
    Measure a model in every precision; on a GPU in float32, float16, bfloat16, and compiled into CUDA graphs.

    Args:
        model: a folder or Hub repository.
        against: what else to measure: `nemo` (of an export of the model), `onnxruntime` (of another).
        rounds: how often each is asked; it answers twice, and the second time counts.
        nemo_python: the interpreter of an environment that has NeMo.
        device: where the model runs; opponents run on the CPU.

    Raises:
        ValueError: for another opponent, or a contestant that does not start; the message ends with its last words.
    """
    flops = _flops(model)
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        contestants = _contestants(model, against or [], folder, nemo_python, device)
        figures: dict[str, dict[str, Figures]] = {name: {} for name in contestants}
        memory = dict.fromkeys(contestants, 0.0)
        ceiling: dict[str, list[float]] = {precision: [] for precision in PRECISIONS if device == "cpu"}
        progress = stack.enter_context(tqdm(total=len(CASES) * rounds, unit="round", disable=None))
        for case, (count, seconds) in CASES.items():
            for name in contestants:
                figures[name][case] = Figures(speech=count * seconds, gflop=count * seconds * flops)
            with ExitStack() as processes:
                ask = {name: processes.enter_context(_worker(*code)) for name, code in contestants.items()}
                for _ in range(rounds):
                    for precision, speeds in ceiling.items():
                        speeds.append(_ceiling(precision))
                    for name, contestant in ask.items():
                        elapsed, peak = contestant(count, seconds)
                        figures[name][case].seconds.append(elapsed)
                        memory[name] = max(memory[name], peak)
                    progress.update()
    best = {precision: max(speeds) for precision, speeds in ceiling.items()}
    return Benchmark(str(model), torch.get_num_threads(), figures, memory, best)


def _contestants(
    model: str, against: list[str], folder: str, nemo_python: str, device: str
) -> dict[str, tuple[str, str]]:
    """Name -> interpreter and code."""

    def ours(argument: str, compiled: bool = False) -> tuple[str, str]:
        return sys.executable, _OURS.format(model=model, argument=argument, device=device, compiled=compiled)

    contestants = {"eager": ours("dtype=torch.float32")}
    if device == "cpu":
        contestants |= {p: ours(f"quantization_config=CitrinetInferenceConfig({p!r})") for p in PRECISIONS}
    else:
        contestants |= {name: ours(f"dtype=torch.{name}") for name in ("float16", "bfloat16")}
        contestants["bfloat16, compiled"] = ours("dtype=torch.bfloat16", compiled=True)
    for opponent in against:
        if opponent == "nemo":
            from ..convert import export_nemo

            file = export_nemo(model, f"{folder}/model.nemo", tag_heads=False).output
            contestants["NeMo"] = (nemo_python, _NEMO.format(file=str(file)))
        elif opponent == "onnxruntime":
            from ..convert.hf_to_onnx import export_onnx

            export_onnx(model, f"{folder}/onnx")
            contestants["onnxruntime"] = (sys.executable, _ONNX.format(folder=f"{folder}/onnx"))
        elif opponent != "eager":
            raise ValueError(f"there is no opponent {opponent!r}: choose eager, nemo or onnxruntime.")
    return contestants


@contextmanager
def _worker(python: str, setup: str) -> Iterator[Callable[[int, int], tuple[float, float]]]:
    """A process that transcribes `count` clips of so many seconds when asked, and says how long that took."""
    with tempfile.TemporaryFile("w+") as errors:
        command = [python, "-c", _WORKER.format(setup=setup)]
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True, bufsize=1
        )
        assert process.stdin is not None and process.stdout is not None
        questions, answers = process.stdin, process.stdout

        def answer() -> str:
            for line in answers:
                if line.startswith("answer:"):  # NeMo writes other lines too
                    return line.removeprefix("answer:")
            errors.seek(0)
            raise ValueError("a contestant stopped: " + " ".join(errors.read().strip().splitlines()[-1:]))

        def ask(count: int, seconds: int) -> tuple[float, float]:
            questions.write(json.dumps([count, seconds]) + "\n")
            elapsed, gigabytes = json.loads(answer())
            return elapsed, gigabytes

        try:
            answer()
            yield ask
        finally:
            process.kill()
            process.wait()


def _flops(model: str) -> float:
    """GFLOP of the network for a second of speech."""
    config = AutoConfig.from_pretrained(model)
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        network = AutoModelForCTC.from_config(config).eval()
        seconds = 8
        network(torch.zeros(1, seconds * RATE // config.hop_length, config.num_mel_bins))
    return counter.get_total_flops() / seconds / 1e9


def _ceiling(precision: str, size: int = 1024, rows: int = 2048) -> float:
    """GFLOP/s of one large product."""
    product = linear_for(precision)(torch.randn(size, size))
    inputs = torch.randn(rows, size, dtype=product.dtype)
    with torch.inference_mode():
        product(inputs)
        start = time.perf_counter()
        for _ in range(5):
            product(inputs)
    return 5 * 2 * rows * size**2 / (time.perf_counter() - start) / 1e9


def _table(benchmark: Benchmark) -> Iterator[str]:
    yield f"{benchmark.model}, {benchmark.threads} threads"
    if benchmark.ceiling:
        ceiling = ", ".join(f"{name} {speed:.0f}" for name, speed in benchmark.ceiling.items())
        yield f"ceiling of matrix products in GFLOP/s: {ceiling}"
    yield "| | " + " | ".join(CASES) + " | peak memory |"
    yield "|---" * (len(CASES) + 2) + "|"
    eager = benchmark.figures["eager"]
    for name, cases in benchmark.figures.items():
        cells = []
        for case, figures in cases.items():
            speed = figures.gflop / figures.median
            part = f", {speed / benchmark.ceiling[name]:.0%} of the ceiling" if name in benchmark.ceiling else ""
            cells.append(
                f"{figures.median:.2f} s ({min(figures.seconds):.2f}-{max(figures.seconds):.2f}), "
                f"{figures.speech / figures.median:.0f}x real time, {eager[case].median / figures.median:.2f}x eager, "
                f"{speed:.0f} GFLOP/s{part}"
            )
        yield f"| {name} | " + " | ".join(cells) + f" | {benchmark.memory[name]:.2f} GB |"


def plot(benchmark: Benchmark, path: str | Path) -> None:
    """Draw seconds of speech for each second of work, contestant by contestant."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4), layout="constrained")
    axes = figure.subplots()
    width = 0.8 / len(benchmark.figures)
    for index, (name, cases) in enumerate(benchmark.figures.items()):
        speeds = [figures.speech / figures.median for figures in cases.values()]
        places = [place + index * width for place in range(len(cases))]
        axes.bar_label(axes.bar(places, speeds, width, label=name), fmt="%.0f", fontsize=8)
    axes.set_xticks([place + 0.4 - width / 2 for place in range(len(CASES))], list(CASES))
    axes.set_ylabel("times real time")
    axes.legend()
    figure.savefig(path)

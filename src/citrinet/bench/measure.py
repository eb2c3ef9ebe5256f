"""Contestants in processes of their own, asked in turn."""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode
from tqdm.auto import tqdm

from ..checkpoint import load_citrinet_config
from ..configuration_citrinet import CitrinetConfig
from ..modeling_citrinet import CitrinetForCTC
from ..optimized import PRECISIONS, linear_for
from ..recognition import is_onnx_folder
from .report import CASES, Benchmark, Figures
from .worker import ANSWER

RATE = 16_000
NEMO_WORKER = Path(__file__).with_name("nemo_worker.py")

Command = list[str]
Ask = Callable[[int, int], tuple[float, float | None]]


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
        model: a folder or Hub repository, or a folder of ONNX graphs, which have a precision of their own.
        against: what else to measure: `nemo` (of an export of the model), `onnxruntime` (of another).
        rounds: how often each is asked; it answers twice, and the second time counts.
        nemo_python: the interpreter of an environment that has NeMo.
        device: where the model runs; opponents run on the CPU.

    Raises:
        OSError: if the model cannot be found or fetched.
        ValueError: for another opponent, or a contestant that does not start; the message ends with its last words.
    """
    model = str(model)
    graphs = is_onnx_folder(model)
    flops = 0.0 if graphs else _flops(load_citrinet_config(model))
    precisions = PRECISIONS if device == "cpu" and not graphs else ()
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        contestants = _contestants(model, against or [], folder, nemo_python, device)
        figures: dict[str, dict[str, Figures]] = {name: {} for name in contestants}
        memory: dict[str, float | None] = dict.fromkeys(contestants)
        ceiling: dict[str, list[float]] = {precision: [] for precision in precisions}
        progress = stack.enter_context(tqdm(total=len(CASES) * rounds, unit="round", disable=None))
        for case, (count, seconds) in CASES.items():
            for name in contestants:
                figures[name][case] = Figures(speech=count * seconds, gflop=count * seconds * flops)
            with ExitStack() as processes:
                ask = {name: processes.enter_context(_process(command)) for name, command in contestants.items()}
                for _ in range(rounds):
                    for precision, speeds in ceiling.items():
                        speeds.append(_ceiling(precision))
                    for name, contestant in ask.items():
                        elapsed, peak = contestant(count, seconds)
                        figures[name][case].seconds.append(elapsed)
                        memory[name] = peak if peak is None else max(memory[name] or 0.0, peak)
                    progress.update()
    best = {precision: max(speeds) for precision, speeds in ceiling.items()}
    return Benchmark(model, torch.get_num_threads(), figures, memory, best)


def _contestants(model: str, against: list[str], folder: str, nemo_python: str, device: str) -> dict[str, Command]:
    """Name -> command; the first is the one that the others are compared with."""
    if is_onnx_folder(model):
        if set(against) - {"eager"}:
            raise ValueError(f"{model} holds ONNX graphs, of which no others can be made: bench the model itself.")
        return {"onnxruntime": _ours(model, device=device)}
    contestants = {"eager": _ours(model, device=device, optimized=False)}
    if device == "cpu":
        contestants |= {precision: _ours(model, precision=precision) for precision in PRECISIONS}
    else:
        bfloat16 = {"device": device, "optimized": False, "precision": "bfloat16"}
        contestants["float16"] = _ours(model, device=device, optimized=False, half=True)
        contestants["bfloat16"] = _ours(model, **bfloat16)
        contestants["bfloat16, compiled"] = _ours(model, **bfloat16, compiled=True)
    for opponent in against:
        if opponent == "nemo":
            from ..convert import export_nemo

            file = export_nemo(model, f"{folder}/model.nemo", tag_heads=False).output
            contestants["NeMo"] = [nemo_python, str(NEMO_WORKER), str(file)]
        elif opponent == "onnxruntime":
            from ..convert.hf_to_onnx import export_onnx

            export_onnx(model, f"{folder}/onnx")
            contestants["onnxruntime"] = _ours(f"{folder}/onnx")
        elif opponent != "eager":
            raise ValueError(f"there is no opponent {opponent!r}: choose eager, nemo or onnxruntime.")
    return contestants


def _ours(model: str, **options: object) -> Command:
    """What `load_recognizer` makes of a model."""
    return [sys.executable, "-m", f"{__package__}.worker", json.dumps({"model": model, **options})]


@contextmanager
def _process(command: Command) -> Iterator[Ask]:
    """A process of `worker.py`, that is ready: it transcribes recordings of so many seconds when asked."""
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as errors:
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, encoding="utf-8", bufsize=1
        )
        assert process.stdin is not None and process.stdout is not None
        questions, answers = process.stdin, process.stdout

        def answer() -> str:
            for line in answers:
                if line.startswith(ANSWER):  # NeMo writes other lines too
                    return line.removeprefix(ANSWER)
            errors.seek(0)
            raise ValueError("a contestant stopped: " + " ".join(errors.read().strip().splitlines()[-1:]))

        def ask(count: int, seconds: int) -> tuple[float, float | None]:
            questions.write(json.dumps([count, seconds]) + "\n")
            elapsed, peak = json.loads(answer())
            return elapsed, peak

        try:
            answer()
            yield ask
        finally:
            process.kill()
            process.wait()


def _flops(config: CitrinetConfig, seconds: int = 8) -> float:
    """GFLOP of the network for a second of speech."""
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        network: Any = CitrinetForCTC(config)
        network.eval()
        network(torch.zeros(1, seconds * RATE // config.hop_length, config.num_mel_bins))
    return float(counter.get_total_flops()) / seconds / 1e9


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

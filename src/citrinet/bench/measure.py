"""Measure contestants in separate processes, in turn."""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
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
from .report import CASES, CASES_ON_DEVICES, Benchmark, Figures
from .sizes import model_folder
from .worker import ANSWER

RATE = 16_000
NEMO_WORKER = Path(__file__).with_name("nemo_worker.py")
DEVICE_PRECISIONS = ("float32", "float16", "bfloat16")
PRODUCT = 8192  # rows and columns of the matrices whose product measures the ceiling of a GPU
OPPONENTS = ("compiled", "eager", "nemo", "onnxruntime")

Command = list[str]
Ask = Callable[[int, int], tuple[float, float | None]]


def bench(
    model: str,
    against: list[str] | None = None,
    rounds: int = 5,
    nemo_python: str = sys.executable,
    device: str = "cpu",
    after_round: Callable[[Benchmark], object] | None = None,
) -> Benchmark:
    """
    Measure the speed of a model in every precision; on a GPU in float32, float16 and bfloat16.

    A contestant that does not start or that stops is left out from then on, and the report says why.

    Args:
        model: a folder or Hub repository, a folder of ONNX graphs (measured only in their own precision), or one of
            `SIZES`, with random weights.
        against: other contestants: `nemo` (an export of the model, on the same device), `onnxruntime` (an ONNX export,
            on the CPU), `compiled` (the ordinary network with `torch.compile`; may take minutes to start).
        rounds: number of measurements of each contestant; each runs twice, and the second run is timed.
        nemo_python: Python interpreter of an environment with NeMo.
        device: PyTorch device on which the model runs.
        after_round: called with the measurements so far after each round.

    Raises:
        OSError: if the model cannot be found or downloaded.
        ValueError: for an unknown opponent, or if no contestant is left; the message ends with one contestant's error.
    """
    name = str(model)
    with ExitStack() as stack:
        model = stack.enter_context(model_folder(name))
        graphs = is_onnx_folder(model)
        flops = 0.0 if graphs else _flops(load_citrinet_config(model))
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        contestants = _contestants(model, against or [], folder, nemo_python, device)
        benchmark = Benchmark(name, torch.get_num_threads(), {name: {} for name in contestants}, {}, {})
        benchmark.memory.update(dict.fromkeys(contestants))
        if not graphs:
            benchmark.ceiling.update(dict.fromkeys(PRECISIONS if device == "cpu" else DEVICE_PRECISIONS, 0.0))
        # On CPUs each case has its own processes; on a GPU starting them would take most of the time.
        groups = [{name: case} for name, case in CASES.items()] if device == "cpu" else [CASES_ON_DEVICES]
        if device != "cpu":
            benchmark.device = _device_name(device)
        total = rounds * sum(map(len, groups))
        progress = stack.enter_context(tqdm(total=total, unit="round", disable=None))
        for cases in groups:
            with ExitStack() as processes:
                ask = _start(contestants, processes, benchmark)
                for case, (count, seconds) in cases.items():
                    for _ in range(rounds):
                        _measure_ceiling(benchmark.ceiling, device)
                        for name in list(ask):
                            figures = benchmark.figures[name].setdefault(
                                case, Figures(speech=count * seconds, gflop=count * seconds * flops)
                            )
                            try:
                                elapsed, peak = ask[name](count, seconds)
                            except ValueError as error:
                                benchmark.failed[name] = str(error)
                                del ask[name]
                                if not ask:
                                    raise
                                continue
                            figures.seconds.append(elapsed)
                            benchmark.memory[name] = peak and max(benchmark.memory[name] or 0.0, peak)
                        progress.update()
                        if after_round is not None:
                            after_round(benchmark)
    return benchmark


def _start(contestants: dict[str, Command], processes: ExitStack, benchmark: Benchmark) -> dict[str, Ask]:
    """Start all contestants at the same time, and return those that become ready."""
    ask: dict[str, Ask] = {}
    failed: dict[str, ValueError] = {}
    starting = {name: processes.enter_context(_process(command)) for name, command in contestants.items()}
    for name, wait in starting.items():
        try:
            ask[name] = wait()
        except ValueError as error:
            failed[name] = error
    benchmark.failed.update({name: str(error) for name, error in failed.items()})
    if not ask:
        raise next(iter(failed.values()))
    return ask


def _contestants(model: str, against: list[str], folder: str, nemo_python: str, device: str) -> dict[str, Command]:
    """Name -> command. The others are compared with the first; the part of a name after the comma is its precision."""
    if is_onnx_folder(model):
        if set(against) - {"eager"}:
            raise ValueError(f"{model} holds ONNX graphs, of which no others can be made: bench the model itself.")
        return {"onnxruntime": _ours(model, device=device)}
    ordinary = {"device": device, "optimized": False}
    contestants = {"eager": _ours(model, **ordinary)}
    if device == "cpu":
        contestants |= {precision: _ours(model, precision=precision) for precision in PRECISIONS}
    else:
        contestants["eager, bfloat16"] = _ours(model, **ordinary, precision="bfloat16")
        contestants |= {name: _ours(model, device=device, precision=name) for name in DEVICE_PRECISIONS}
    for opponent in against:
        if opponent == "nemo":
            from ..convert import export_nemo

            file = export_nemo(model, f"{folder}/model.nemo", tag_heads=False).output
            command = [nemo_python, str(NEMO_WORKER), str(file), device]
            contestants["NeMo"] = [*command, "float32"]
            if device != "cpu":
                contestants["NeMo, bfloat16"] = [*command, "bfloat16"]
        elif opponent == "onnxruntime":
            from ..convert.hf_to_onnx import export_onnx

            export_onnx(model, f"{folder}/onnx")
            contestants["onnxruntime"] = _ours(f"{folder}/onnx")
        elif opponent == "compiled":
            precision = "float32" if device == "cpu" else "bfloat16"
            contestants[f"compiled, {precision}"] = _ours(model, **ordinary, precision=precision, compiled=True)
        elif opponent != "eager":
            raise ValueError(f"there is no opponent {opponent!r}: choose {', '.join(OPPONENTS)}.")
    return contestants


def _ours(model: str, **options: object) -> Command:
    """Command of a worker that loads a model with `load_recognizer`."""
    return [sys.executable, "-m", f"{__package__}.worker", json.dumps({"model": model, **options})]


@contextmanager
def _process(command: Command) -> Iterator[Callable[[], Ask]]:
    """Run a worker process; yields a function that waits until it is ready and returns a function to ask it."""
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as errors:
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, encoding="utf-8", bufsize=1
        )
        assert process.stdin is not None and process.stdout is not None
        questions, answers = process.stdin, process.stdout

        def answer() -> str:
            for line in answers:
                if line.startswith(ANSWER):  # NeMo prints other lines too
                    return line.removeprefix(ANSWER)
            errors.seek(0)
            raise ValueError("a contestant stopped: " + " ".join(errors.read().strip().splitlines()[-1:]))

        def ask(count: int, seconds: int) -> tuple[float, float | None]:
            with suppress(OSError):  # if it has stopped, `answer` raises the error
                questions.write(json.dumps([count, seconds]) + "\n")
            elapsed, peak = json.loads(answer())
            return elapsed, peak

        def wait() -> Ask:
            answer()
            return ask

        try:
            yield wait
        finally:
            process.kill()
            process.wait()


def _flops(config: CitrinetConfig, seconds: int = 8) -> float:
    """GFLOP that the network needs for a second of speech."""
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        network: Any = CitrinetForCTC(config)
        network.eval()
        network(torch.zeros(1, seconds * RATE // config.hop_length, config.num_mel_bins))
    return float(counter.get_total_flops()) / seconds / 1e9


def _measure_ceiling(ceiling: dict[str, float], device: str) -> None:
    """Measure the peak speed in each precision, and keep the best so far."""
    for precision, best in ceiling.items():
        speed = _ceiling(precision) if device == "cpu" else _device_ceiling(precision, device)
        ceiling[precision] = max(best, speed)


def _ceiling(precision: str, size: int = 1024, rows: int = 2048) -> float:
    """GFLOP/s of one large matrix product on the CPU."""
    product = linear_for(precision)(torch.randn(size, size))
    inputs = torch.randn(rows, size, dtype=product.dtype)
    with torch.inference_mode():
        product(inputs)
        start = time.perf_counter()
        for _ in range(5):
            product(inputs)
    return 5 * 2 * rows * size**2 / (time.perf_counter() - start) / 1e9


def _device_ceiling(precision: str, device: str) -> float:
    """GFLOP/s of one large matrix product on a GPU."""
    with torch.inference_mode():
        factor = torch.randn(PRODUCT, PRODUCT, device=device, dtype=getattr(torch, precision))
        product = factor @ factor
        product[0, 0].item()  # waits for the GPU to finish
        start = time.perf_counter()
        for _ in range(5):
            torch.mm(factor, factor, out=product)
        product[0, 0].item()
    return 5 * 2 * PRODUCT**3 / (time.perf_counter() - start) / 1e9


def _device_name(device: str) -> str:
    """Name of the GPU, or of the device."""
    return torch.cuda.get_device_name(device) if torch.device(device).type == "cuda" else device

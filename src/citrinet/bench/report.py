"""Measurements of a benchmark, as a table and as a plot."""

import statistics
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

CASES = {"1 x 10 s": (1, 10), "8 x 10 s": (8, 10), "1 x 60 s": (1, 60)}  # recordings, and seconds of each
CASES_ON_DEVICES = {**CASES, "64 x 10 s": (64, 10)}


@dataclass
class Figures:
    """
    Measurements of one contestant in one case.

    Args:
        seconds: time of every round.
        speech: seconds of speech in the case.
        gflop: billions of floating-point operations of the network in the case; 0 if unknown.
    """

    seconds: list[float] = field(default_factory=list)
    speech: float = 0.0
    gflop: float = 0.0

    @property
    def median(self) -> float:
        """Median time in seconds."""
        return statistics.median(self.seconds)


@dataclass
class Benchmark:
    """
    All measurements of a benchmark.

    Args:
        model: name of the model.
        threads: number of threads that PyTorch uses.
        figures: contestant -> case -> [`Figures`]; the others are compared with the first contestant.
        memory: contestant -> peak memory in GB of its largest process, on a GPU the GPU's memory; `None` if unknown.
        ceiling: precision -> GFLOP/s of a large matrix product on this CPU or GPU, measured in the same rounds.
        device: name of the GPU, or `cpu`.
        failed: contestant that stopped -> reason; its earlier measurements are kept.
    """

    model: str
    threads: int
    figures: dict[str, dict[str, Figures]]
    memory: dict[str, float | None]
    ceiling: dict[str, float]
    device: str = "cpu"
    failed: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return "\n".join(self._lines())

    def to_dict(self) -> dict[str, Any]:
        """The measurements as plain dicts and lists, for JSON."""
        return asdict(self)

    def _lines(self) -> Iterator[str]:
        yield f"{self.model}, {self.threads} threads" + ("" if self.device == "cpu" else f", {self.device}")
        if self.ceiling:
            ceiling = ", ".join(f"{name} {speed:.0f}" for name, speed in self.ceiling.items())
            yield f"ceiling of matrix products in GFLOP/s: {ceiling}"
        cases = list(dict.fromkeys(case for figures in self.figures.values() for case in figures))
        yield "| | " + " | ".join(cases) + " | peak memory |"
        yield "|---" * (len(cases) + 2) + "|"
        for name in self.figures:
            cells = [self._cell(name, case) for case in cases]
            memory = self.memory[name]
            yield f"| {name} | " + " | ".join(cells) + f" | {'–' if memory is None else f'{memory:.2f} GB'} |"
        yield from (f"{name}: {reason}" for name, reason in self.failed.items())

    def _cell(self, name: str, case: str) -> str:
        first, figures = next(iter(self.figures)), self.figures[name].get(case)
        if figures is None or not figures.seconds:
            return "–"
        digits = 2 if figures.median >= 0.1 else 4
        parts = [
            f"{figures.median:.{digits}f} s ({min(figures.seconds):.{digits}f}-{max(figures.seconds):.{digits}f})",
            f"{figures.speech / figures.median:.0f}x real time",
        ]
        reference = self.figures[first].get(case)
        if reference is not None and reference.seconds:
            parts.append(f"{reference.median / figures.median:.2f}x {first}")
        if figures.gflop:
            speed = figures.gflop / figures.median
            parts.append(f"{speed:.0f} GFLOP/s")
            if ceiling := self.ceiling.get(name.split(", ")[-1]):
                parts.append(f"{speed / ceiling:.0%} of the ceiling")
        return ", ".join(parts)


def plot(benchmark: Benchmark, path: str | Path) -> None:
    """Plot the speed of each contestant as a multiple of real time, and save it to `path`."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4), layout="constrained")
    axes = figure.subplots()
    width = 0.8 / len(benchmark.figures)
    labels: list[str] = []
    for index, (name, cases) in enumerate(benchmark.figures.items()):
        measured = {case: figures for case, figures in cases.items() if figures.seconds}
        labels += [case for case in measured if case not in labels]
        speeds = [figures.speech / figures.median for figures in measured.values()]
        places = [labels.index(case) + index * width for case in measured]
        axes.bar_label(axes.bar(places, speeds, width, label=name), fmt="%.0f", fontsize=8)
    axes.set_xticks([place + 0.4 - width / 2 for place in range(len(labels))], labels)
    axes.set_ylabel("times real time")
    axes.legend()
    figure.savefig(path)

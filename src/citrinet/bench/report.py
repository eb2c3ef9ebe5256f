"""What was measured, as a table and as a picture."""

import statistics
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

CASES = {"1 x 10 s": (1, 10), "8 x 10 s": (8, 10), "1 x 60 s": (1, 60)}  # recordings, and seconds of each


@dataclass
class Figures:
    """
    What one contestant took for one case.

    Args:
        seconds: of every round.
        speech: seconds of speech in the case.
        gflop: billions of floating-point operations of the network in it; 0 where they are not known.
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
        figures: contestant -> case -> [`Figures`]; the others are compared with the first one.
        memory: contestant -> peak GB of its largest process; none where the system does not say.
        ceiling: precision -> GFLOP/s of a large matrix product on this CPU, measured in the same rounds.
    """

    model: str
    threads: int
    figures: dict[str, dict[str, Figures]]
    memory: dict[str, float | None]
    ceiling: dict[str, float]

    def __str__(self) -> str:
        return "\n".join(self._lines())

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)

    def _lines(self) -> Iterator[str]:
        yield f"{self.model}, {self.threads} threads"
        if self.ceiling:
            ceiling = ", ".join(f"{name} {speed:.0f}" for name, speed in self.ceiling.items())
            yield f"ceiling of matrix products in GFLOP/s: {ceiling}"
        cases = next(iter(self.figures.values()))
        yield "| | " + " | ".join(cases) + " | peak memory |"
        yield "|---" * (len(cases) + 2) + "|"
        for name in self.figures:
            cells = [self._cell(name, case) for case in cases]
            memory = self.memory[name]
            yield f"| {name} | " + " | ".join(cells) + f" | {'–' if memory is None else f'{memory:.2f} GB'} |"

    def _cell(self, name: str, case: str) -> str:
        first, figures = next(iter(self.figures)), self.figures[name][case]
        parts = [
            f"{figures.median:.2f} s ({min(figures.seconds):.2f}-{max(figures.seconds):.2f})",
            f"{figures.speech / figures.median:.0f}x real time",
            f"{self.figures[first][case].median / figures.median:.2f}x {first}",
        ]
        if figures.gflop:
            speed = figures.gflop / figures.median
            parts.append(f"{speed:.0f} GFLOP/s")
            if name in self.ceiling:
                parts.append(f"{speed / self.ceiling[name]:.0%} of the ceiling")
        return ", ".join(parts)


def plot(benchmark: Benchmark, path: str | Path) -> None:
    """Draw seconds of speech for each second of work, contestant by contestant."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4), layout="constrained")
    axes = figure.subplots()
    width = 0.8 / len(benchmark.figures)
    labels: list[str] = []
    for index, (name, cases) in enumerate(benchmark.figures.items()):
        speeds = [figures.speech / figures.median for figures in cases.values()]
        places = [place + index * width for place in range(len(cases))]
        axes.bar_label(axes.bar(places, speeds, width, label=name), fmt="%.0f", fontsize=8)
        labels = list(cases)
    axes.set_xticks([place + 0.4 - width / 2 for place in range(len(labels))], labels)
    axes.set_ylabel("times real time")
    axes.legend()
    figure.savefig(path)

"""Plot of a run's log."""

import json
from pathlib import Path

from matplotlib.figure import Figure


def draw_log(log: Path, picture: Path) -> None:
    """
    Draw losses, learning rate and error rates over the steps.

    Args:
        log: JSON lines written by the training.
        picture: output file, a PNG.
    """
    lines = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    losses = [line for line in lines if "loss" in line]
    scores = [line for line in lines if "validation" in line]
    figure = Figure(figsize=(9, 8), layout="constrained")
    axes = figure.subplots(3, sharex=True)
    steps = [line["step"] for line in losses]
    for name in ("tokens", "syllables", "tags"):
        axes[0].plot(steps, [line[name] for line in losses], label=name)
    axes[0].set(ylabel="loss", yscale="log")
    axes[1].plot(steps, [line["rate"] for line in losses])
    axes[1].set(ylabel="learning rate")
    for name in scores[0]["validation"] if scores else ():
        rates = [100 * line["validation"][name]["cer"] for line in scores]
        axes[2].plot([line["step"] for line in scores], rates, marker="o", label=name)
    axes[2].set(ylabel="CER, %", xlabel="step")
    for axis in axes:
        axis.grid(alpha=0.3)
        if axis.get_legend_handles_labels()[0]:
            axis.legend()
    figure.savefig(picture, dpi=120)

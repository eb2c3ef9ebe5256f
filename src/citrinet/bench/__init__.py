"""
Speed of a model on this machine, in every precision and beside others, from waveform to text.

For every case each contestant lives in a process of its own: peak memory is its own, and what an earlier case left
behind (an allocator keeps more of what it frees after it has seen large blocks) changes no later one. On a GPU,
where their start would take most of the time, they stay. They are asked in turn, round by round, and only one works at
a time.
"""

from .measure import bench
from .report import CASES, CASES_ON_DEVICES, Benchmark, Figures, plot
from .sizes import SIZES, model_folder, size_config

__all__ = [
    "CASES",
    "CASES_ON_DEVICES",
    "SIZES",
    "Benchmark",
    "Figures",
    "bench",
    "model_folder",
    "plot",
    "size_config",
]

"""
Measure the speed of a model on this machine, from waveform to text, in each precision and against other runtimes.

On a CPU, each contestant runs in a new process for each case, so that its peak memory is measured separately and
earlier cases do not affect later ones (an allocator keeps more freed memory after it has seen large blocks). On a GPU,
where starting would take most of the time, a process runs all cases. Contestants take turns, round by round, and only
one works at a time.
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

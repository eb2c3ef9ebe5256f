"""Control of memory after loading and computing, on Linux with glibc; elsewhere these functions do nothing."""

import ctypes
import mmap
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # from glibc's malloc.h


def mapped_ranges(files: Iterable[str]) -> list[range]:
    """Address ranges at which Linux maps weight files into the memory of this process."""
    if sys.platform != "linux":
        return []
    paths = {str(Path(file).resolve()) for file in files}
    lines = (line.split(maxsplit=5) for line in Path("/proc/self/maps").read_text().splitlines())
    places = (line[0].split("-") for line in lines if len(line) == 6 and line[5] in paths)
    return [range(int(start, 16), int(stop, 16)) for start, stop in places]


def drop_pages(weights: Iterable[torch.Tensor], mappings: Sequence[range]) -> None:
    """
    Drop the pages of weights that are mapped from a file and not needed any more.

    Otherwise they would stay in memory, in addition to the packed weights, as long as anything uses the file. Only
    whole pages are dropped, so that neighbouring weights stay.

    Args:
        weights: the weights, anywhere in memory.
        mappings: the result of [`mapped_ranges`] for their files.
    """
    libc = _glibc()
    if libc is None:
        return
    for weight in weights:
        start, stop = weight.data_ptr(), weight.data_ptr() + weight.nbytes
        first, end = -(-start // mmap.PAGESIZE) * mmap.PAGESIZE, stop // mmap.PAGESIZE * mmap.PAGESIZE
        if first < end and any(start in mapping and stop - 1 in mapping for mapping in mappings):
            libc.madvise(ctypes.c_void_p(first), ctypes.c_size_t(end - first), mmap.MADV_DONTNEED)


def return_free_memory() -> None:
    """Make glibc return free memory between matrices, which otherwise takes as much again as the packed weights."""
    if libc := _glibc():
        libc.malloc_trim(0)


def keep_free_memory() -> None:
    """
    Make glibc keep up to 256 MB that the network frees, for its next activations.

    Activations of long or many recordings are so large that glibc would return their memory at once, and then have to
    request fresh pages.
    """
    if libc := _glibc():
        libc.mallopt(_M_MMAP_THRESHOLD, 64 * 2**20)
        libc.mallopt(_M_TRIM_THRESHOLD, 256 * 2**20)


def _glibc() -> ctypes.CDLL | None:
    library = ctypes.CDLL(None) if sys.platform == "linux" else None
    return library if hasattr(library, "malloc_trim") else None

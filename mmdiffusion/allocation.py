"""Memory of a training on a CPU: kept for the next step instead of given back to the system after every one."""

import ctypes
import sys

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3
"""Parameters of glibc's `mallopt` (malloc.h)."""
NEVER = -1
LARGEST = (2**30, 2**25)
"""Bytes from which a tensor still has pages of its own, which go back to the system with it. An older glibc takes no
more than the second, which it would come to by itself."""


def keep_freed_memory() -> bool:
    """Keep memory that tensors leave, for the tensors that come after them.

    glibc gives large ones back to the system at once, which hands them out again zeroed, page by page: writing 33 MB
    into such memory takes two to four times as long. What a process holds at its peak stays about the same
    (docs/performance.md), and stays with it until it ends. Other systems, and other C libraries, are left as they are.

    Returns:
        Whether there was something to set.
    """
    if sys.platform != "linux":
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None or not any(mallopt(MMAP_THRESHOLD, size) for size in LARGEST):
        return False  # the other by itself would leave the threshold where it starts, which is slower than nothing
    return bool(mallopt(TRIM_THRESHOLD, NEVER))

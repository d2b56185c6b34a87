"""Keep the memory that a training step has freed for the next one."""

from __future__ import annotations

import ctypes
import logging

logger = logging.getLogger(__name__)

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of mallopt(3)
_MOST = 2**31 - 1


def keep_freed_memory() -> bool:
    """Ask the C library not to give large blocks back to the system; whether it took the wish.

    A step allocates and frees the same few hundred megabytes of feature maps. By default glibc maps and unmaps each,
    and the system zeroes every page anew. The process then keeps its peak memory to its end, which is why only
    trainings ask for it. Other C libraries and systems are left alone.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):
        return False
    mallopt.argtypes, mallopt.restype = (ctypes.c_int, ctypes.c_int), ctypes.c_int
    taken = [mallopt(name, _MOST) for name in (_TRIM_THRESHOLD, _MMAP_THRESHOLD)]
    logger.info("the allocator %s freed memory", "keeps" if all(taken) else "does not keep")
    return all(taken)

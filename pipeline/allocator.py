"""Keep the C library's heap small. Where it knows no such calls (musl, macOS), it stays as it is."""

from __future__ import annotations

import contextlib
import ctypes

_M_ARENA_MAX, _M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -8, -1, -3
_ARENAS = 2
_WORTH_MAPPING_BYTES = 1 << 18


def keep_small() -> None:
    """Let threads share two heaps, and large blocks go back to the system when they are freed.

    glibc gives each thread a heap of its own and raises the size from which it maps blocks with each one that is freed:
    a node with a dozen threads then keeps tens of megabytes that nobody uses.
    """
    with contextlib.suppress(AttributeError, OSError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_M_ARENA_MAX, _ARENAS)
        mallopt(_M_MMAP_THRESHOLD, _WORTH_MAPPING_BYTES)
        mallopt(_M_TRIM_THRESHOLD, _WORTH_MAPPING_BYTES)


def give_back() -> None:
    """Give free memory back to the system."""
    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None).malloc_trim(0)

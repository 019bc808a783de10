"""Makes glibc give memory back, which it hoards when documents differ much in length.

Where the C library has no ``mallopt`` and ``malloc_trim`` nothing is done.
"""

import ctypes
from collections.abc import Callable

M_MMAP_THRESHOLD = -3
"""mallopt's name for the size from which a block is mapped by itself (malloc.h)."""
MAPPED_FROM = 2**17
"""Bytes: glibc's own threshold at the start of a program."""

LIBC = ctypes.CDLL(None)


def give_back_large_blocks() -> None:
    """Has glibc return every block of 128 KiB or more to the system as soon as it is freed.

    By itself glibc raises that threshold, up to 32 MiB, to the size of what was freed. Below it
    blocks share a heap, in which a long document leaves holes that the next one does not fit into.
    """
    call("mallopt", M_MMAP_THRESHOLD, MAPPED_FROM)


def give_back_free_pages() -> None:
    """Has glibc return the free pages of all threads' heaps: those that small blocks have left."""
    call("malloc_trim", 0)


def call(name: str, *arguments: int) -> None:
    function: Callable[..., int] | None = getattr(LIBC, name, None)
    if function is not None:
        function(*arguments)

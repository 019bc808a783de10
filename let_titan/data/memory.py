"""What of its memory a program gives back: glibc's heap under documents of unlike lengths."""

import ctypes

M_MMAP_THRESHOLD = -3
"""mallopt's name for the size from which a block is mapped by itself (malloc.h)."""
MAPPED_FROM = 2**17
"""Bytes: glibc's own threshold at the start of a program."""


def give_back_large_blocks() -> None:
    """Has glibc return every block of 128 KiB or more to the system as soon as it is freed.

    By itself glibc raises that threshold, up to 32 MiB, to the size of what was freed. Below it
    blocks share a heap, in which a long document leaves holes that the next one does not fit into.
    Does nothing where the C library has no ``mallopt``.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_MMAP_THRESHOLD, MAPPED_FROM)

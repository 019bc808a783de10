"""Bytes and counts as people read them."""


def gib(n_bytes: float) -> str:
    return f"{n_bytes / 2**30:,.2f} GiB"


def gflop(number: float) -> str:
    return f"{number / 1e9:,.3f} GFLOP"

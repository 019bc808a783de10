"""Python objects gathered over ranks, work of some ranks that others wait for, and patience."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch.distributed as dist

from let_titan.errors import ConfigError, RunError

PATIENCE = timedelta(days=1)
"""How long ranks wait for a download, a conversion or another rank's reading. In the default group
they would wait for ``comm.init_timeout_seconds``."""


def gathered(value: Any, group: dist.ProcessGroup | None = None) -> list[Any]:
    """Returns the ``value`` of every rank, by rank; without a process group this one's alone.

    Args:
        value: can be pickled.
        group: whose ranks; None: all.
    """
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return [value]
    values: list[Any] = [None] * dist.get_world_size(group)
    dist.all_gather_object(values, value, group)
    return values


def do_where(
    here: bool, work: Callable[[], object], group: dist.ProcessGroup | None = None
) -> None:
    """Does ``work`` on the ranks where ``here`` holds; every rank calls, and waits for them.

    Args:
        here: whether this rank does it.
        work: what to do.
        group: whose ranks; None: all.

    Raises:
        ConfigError, RunError: the first that a rank raised, on all ranks. Any other error is the
            rank's own, and a RunError on the others.
    """
    error: Exception | None = None
    if here:
        try:
            work()
        except Exception as raised:
            error = raised
    for met in gathered(as_told(error), group):
        if met is not None:
            raise error or met


def as_told(error: Exception | None) -> Exception | None:
    """Returns an error as one that can be pickled for other ranks."""
    if error is None or isinstance(error, ConfigError | RunError):
        return error
    rank = os.environ.get("RANK", "0")
    return RunError(f"Rank {rank} failed ({type(error).__name__}: {error}).")


@contextmanager
def patient_group() -> Iterator[dist.ProcessGroup]:
    """While active, a group of all ranks whose collectives wait for ``PATIENCE``."""
    group: Any = dist.new_group(backend="gloo", timeout=PATIENCE)
    try:
        yield group
    finally:
        dist.destroy_process_group(group)

"""What ranks tell each other of Python objects, and how they wait for what only some do."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch.distributed as dist

PATIENCE = timedelta(days=1)
"""How long ranks wait for a download, a conversion or another rank's reading; in the default group
it would be ``comm.init_timeout_seconds``."""


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


@contextmanager
def patient_group() -> Iterator[dist.ProcessGroup]:
    """A group of all ranks in which none is given up; gone afterwards."""
    group: Any = dist.new_group(backend="gloo", timeout=PATIENCE)
    try:
        yield group
    finally:
        dist.destroy_process_group(group)

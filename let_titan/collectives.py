"""Python objects gathered over ranks, and a group in which ranks may wait for hours."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch.distributed as dist

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


@contextmanager
def patient_group() -> Iterator[dist.ProcessGroup]:
    """While active, a group of all ranks whose collectives wait for ``PATIENCE``."""
    group: Any = dist.new_group(backend="gloo", timeout=PATIENCE)
    try:
        yield group
    finally:
        dist.destroy_process_group(group)

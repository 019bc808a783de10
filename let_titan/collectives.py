"""What ranks tell each other of Python objects."""

from typing import Any

import torch.distributed as dist


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

"""Which of the vocabulary's columns a rank holds of logits."""

import torch
from torch.distributed.tensor import DTensor


def local_columns(logits: torch.Tensor) -> tuple[torch.Tensor, int]:
    """Returns this rank's columns, as a view, and the id of the first of them."""
    if not isinstance(logits, DTensor):
        return logits, 0
    [placement] = logits.placements
    local = logits.to_local()
    if not placement.is_shard(logits.ndim - 1):
        return local, 0
    mesh = logits.device_mesh
    # As torch.chunk cuts it: all shards but the last ones have this many.
    size = -(-logits.shape[-1] // mesh.size())
    return local, size * mesh.get_local_rank()

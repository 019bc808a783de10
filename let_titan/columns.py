"""What a rank holds of a DTensor: of logits the columns, of an LM head the rows."""

import torch
from torch.distributed.tensor import DTensor


def local(tensor: torch.Tensor) -> torch.Tensor:
    """Returns this rank's part of a DTensor; any other tensor as it is."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def local_columns(logits: torch.Tensor) -> tuple[torch.Tensor, int]:
    """Returns this rank's columns, as a view, and the id of the first of them."""
    if not isinstance(logits, DTensor):
        return logits, 0
    return logits.to_local(), first_of_shard(logits, logits.ndim - 1)


def first_of_shard(tensor: DTensor, dim: int) -> int:
    """Returns where this rank's part begins along ``dim``; 0 where that is not cut."""
    [placement] = tensor.placements
    if not placement.is_shard(dim):
        return 0
    mesh = tensor.device_mesh
    # As torch.chunk cuts it: all shards but the last ones have this many.
    return -(-tensor.shape[dim] // mesh.size()) * mesh.get_local_rank()

"""The padding of the vocabulary: rows of embedding and LM head that no id ever names."""

import torch
from torch.distributed.tensor import DTensor


@torch.no_grad()
def hide_padding(logits: torch.Tensor, vocabulary: int) -> None:
    """Sets the logits of ids from ``vocabulary`` on to -inf, in place.

    Outside autograd (``.data``: whole logits under tensor parallelism are a view that it guards): a
    softmax gives such columns the gradient zero, exactly, and what comes back to them is handed on
    as it is. That costs no second tensor of the logits' size, and the cross entropy, sharded or
    not, sees the tokenizer's ids alone. No operation has kept the logits for its backward yet.

    Args:
        logits: [B, S, V] or, under tensor parallelism, its shards along V.
        vocabulary: ids of the tokenizer.
    """
    local, first = local_columns(logits)
    local.data[..., max(0, vocabulary - first) :] = -torch.inf


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

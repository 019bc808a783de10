"""Which of the teacher's rows meet the block outputs that this rank holds."""

import torch
from torchtitan.distributed import ParallelDims


def rows_of_this_rank(
    states: torch.Tensor, dims: ParallelDims, positions: torch.Tensor | None = None
) -> torch.Tensor:
    """Cuts the sequence axis as context and tensor parallelism cut the student's states.

    The teacher reads whole sequences. Context parallelism gives a rank the positions that its load
    balancer chose; of these, block outputs under tensor (then sequence) parallelism are the rank's
    chunk.

    Args:
        states: [B, S, ...], of whole sequences.
        dims: the layout.
        positions: [B, S / cp] under context parallelism, the same in each row.

    Returns:
        [B, S / (cp x tp), ...], contiguous, so that the whole can be freed.
    """
    if positions is not None:
        states = states[:, positions[0]]
    if dims.tp_enabled:
        mesh = dims.get_mesh("tp")
        states = states.chunk(mesh.size(), dim=1)[mesh.get_local_rank()]
    return states.contiguous()

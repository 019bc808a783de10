"""Which of the teacher's rows a rank computes, and which meet the block outputs that it holds."""

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import DeviceMesh
from torchtitan.distributed import ParallelDims


def share_of_batch(rows: int, dims: ParallelDims) -> slice:
    """Returns which of a batch's ``rows`` this rank's teacher reads.

    Tensor-parallel ranks hold the same batch, so each reads its share and ``rows_of_this_rank``
    exchanges; all read everything where they do not divide it.
    """
    mesh = dims.get_optional_mesh("tp")
    if mesh is None or rows % mesh.size():
        return slice(None)
    share = rows // mesh.size()
    return slice(mesh.get_local_rank() * share, (mesh.get_local_rank() + 1) * share)


def rows_of_this_rank(
    states: torch.Tensor, rows: int, dims: ParallelDims, positions: torch.Tensor | None = None
) -> torch.Tensor:
    """Cuts the sequence axis as context and tensor parallelism cut the student's states.

    The teacher reads whole sequences. Context parallelism gives a rank the positions that its load
    balancer chose; of these, block outputs under tensor (then sequence) parallelism are the rank's
    chunk.

    Args:
        states: of whole sequences, [B, S, ...] or this rank's ``share_of_batch`` of it.
        rows: B.
        dims: the layout.
        positions: [B, S / cp] under context parallelism, the same in each row.

    Returns:
        [B, S / (cp x tp), ...], contiguous, so that the whole can be freed.
    """
    if positions is not None:
        states = states[:, positions[0]]
    mesh = dims.get_optional_mesh("tp")
    if mesh is None:
        return states.contiguous()
    chunks = states.chunk(mesh.size(), dim=1)
    if len(states) < rows:
        return exchanged(chunks, mesh)
    return chunks[mesh.get_local_rank()].contiguous()


def all_rows(
    states: torch.Tensor, rows: int, dims: ParallelDims, positions: torch.Tensor | None = None
) -> torch.Tensor:
    """Cuts the sequence axis as context parallelism does, and no other: for an LM head's inputs.

    All that tensor-parallel ranks computed by ``share_of_batch`` comes together.

    Args:
        states, rows, dims, positions: as ``rows_of_this_rank`` takes them; without positions
            the states may be one number a row.

    Returns:
        [B, S / cp, ...].
    """
    if positions is not None:
        states = states[:, positions[0]]
    if len(states) == rows:
        return states
    mesh = dims.get_mesh("tp")
    whole = states.new_empty(rows, *states.shape[1:])
    dist.all_gather_into_tensor(whole, states.contiguous(), mesh.get_group())
    return whole


def exchanged(chunks: tuple[torch.Tensor, ...], mesh: DeviceMesh) -> torch.Tensor:
    """Hands chunk i, [B / n, S / n, ...], to rank i of n; returns [B, S / n, ...] of all ranks."""
    sent = torch.stack(chunks)
    received = torch.empty_like(sent)
    dist.all_to_all_single(received, sent, group=mesh.get_group())
    return received.flatten(0, 1)

"""Which of the teacher's rows a rank computes, and which meet the block outputs that it holds."""

from collections.abc import Mapping

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import DeviceMesh
from torchtitan.distributed import ParallelDims


def sharing_axes(rows: int, dims: ParallelDims) -> list[str]:
    """Returns the axes of the mesh over which the ``rows`` of a batch are divided for the teacher.

    Tensor- and context-parallel ranks hold the same rows; where they can be divided among them,
    each token costs its teacher's forward once.
    """
    meshes = {axis: dims.get_optional_mesh(axis) for axis in ("tp", "cp")}
    return dividing_axes(
        rows, {axis: mesh.size() for axis, mesh in meshes.items() if mesh is not None}
    )


def dividing_axes(rows: int, sizes: Mapping[str, int]) -> list[str]:
    """Returns the axes over which ``rows`` can be divided evenly, one after the other."""
    axes = []
    for axis, size in sizes.items():
        if rows % size == 0:
            axes.append(axis)
            rows //= size
    return axes


def share_of_batch(rows: int, dims: ParallelDims) -> slice:
    """Returns which of a batch's ``rows`` this rank's teacher reads.

    Ranks with the same batch each read a share, and ``rows_of_this_rank`` exchanges the states. If
    the rows cannot be divided evenly, each rank reads all of them.
    """
    share, begin = rows, 0
    for axis in sharing_axes(rows, dims):
        mesh = dims.get_mesh(axis)
        share //= mesh.size()
        begin += mesh.get_local_rank() * share
    return slice(begin, begin + share)


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
    states = at_positions(states, rows, dims, positions)
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
    """Cuts the sequence axis as context parallelism alone does, as an LM head takes it.

    What other ranks computed by ``share_of_batch`` is gathered.

    Args:
        states, rows, dims, positions: as ``rows_of_this_rank`` takes them; without positions
            the states may be one number a row.

    Returns:
        [B, S / cp, ...], or [B, ...] without positions.
    """
    shared = sharing_axes(rows, dims) if len(states) < rows else []
    if positions is not None:
        states = at_positions(states, rows, dims, positions)
    elif "cp" in shared:
        states = gathered_rows(states, dims.get_mesh("cp"))
    return gathered_rows(states, dims.get_mesh("tp")) if "tp" in shared else states


def at_positions(
    states: torch.Tensor, rows: int, dims: ParallelDims, positions: torch.Tensor | None
) -> torch.Tensor:
    """Cuts the sequence axis as context parallelism does, and exchanges what its ranks shared.

    Returns:
        [b, S / cp, ...], b = B / tp where tensor parallelism shares the rows, else B.
    """
    if positions is None:
        return states
    mine = positions[0]
    if len(states) == rows or "cp" not in sharing_axes(rows, dims):
        return states[:, mine]
    mesh = dims.get_mesh("cp")
    everyones = gathered_rows(mine.unsqueeze(0), mesh)
    return exchanged(tuple(states[:, theirs] for theirs in everyones), mesh)


def gathered_rows(states: torch.Tensor, mesh: DeviceMesh) -> torch.Tensor:
    """Returns [n B, ...] of the [B, ...] of the n ranks of ``mesh``."""
    whole = states.new_empty(mesh.size() * len(states), *states.shape[1:])
    dist.all_gather_into_tensor(whole, states.contiguous(), mesh.get_group())
    return whole


def exchanged(chunks: tuple[torch.Tensor, ...], mesh: DeviceMesh) -> torch.Tensor:
    """Hands chunk i, [B / n, S / n, ...], to rank i of n; returns [B, S / n, ...] of all ranks."""
    sent = torch.stack(chunks)
    received = torch.empty_like(sent)
    dist.all_to_all_single(received, sent, group=mesh.get_group())
    return received.flatten(0, 1)

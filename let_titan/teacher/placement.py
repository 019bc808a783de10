"""Where a teacher's weights lie: whole on every rank, or sharded over ranks, block by block."""

import os
from typing import Any

import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import fully_shard
from torchtitan.distributed import ParallelDims
from torchtitan.tools.utils import device_type

from let_titan.teacher.blocks import block_list

REPLICATE_BELOW_BYTES = 1 << 30
"""``placement = "auto"``: a smaller teacher is cheaper to keep whole than to gather every step."""


def processes_per_node() -> int:
    """Returns how many processes torchrun started on this node."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def ranks_of_node(rank: int, world: int, per_node: int, pipeline: int = 1) -> list[int]:
    """Returns the ranks that shard one teacher under ``placement = "node"``, ``rank`` among them.

    They are on its node and hold the same stage of the pipeline, the mesh's outermost axis: such
    ranks call their teacher equally often, whatever part of the batch or the student they hold.
    """
    first, stage = rank // per_node * per_node, world // pipeline
    node = range(first, min(first + per_node, world))
    return [other for other in node if other // stage == rank // stage]


def shard_mesh(placement: str, dims: ParallelDims, per_node: int) -> DeviceMesh | None:
    """Returns the ranks to shard a teacher over, if there are several.

    Args:
        placement: "node": the node's; else those that shard the student.
        dims: the run's layout.
        per_node: processes on each node.
    """
    if placement != "node":
        return dims.get_optional_mesh("fsdp")
    ranks = ranks_of_node(dist.get_rank(), dims.world_size, per_node, dims.pp)
    if len(ranks) == 1:
        return None
    # Only its members call this: ranks of other stages may have no teacher.
    group: Any = dist.new_group(ranks, use_local_synchronization=True)
    return DeviceMesh.from_group(group, device_type)


def leave(mesh: DeviceMesh | None, placement: str) -> None:
    """Destroys the group that ``shard_mesh`` made of a node's ranks; each of them calls.

    Nothing may be sharded over it any more, and no collective be under way. The meshes of the run's
    layout stay.
    """
    if mesh is not None and placement == "node":
        dist.destroy_process_group(mesh.get_group())


def place(model: nn.Module, mesh: DeviceMesh | None, placement: str, n_bytes: int) -> str:
    """Shards a teacher of ``n_bytes`` over ``mesh`` block by block, or leaves it whole.

    Each block's all-gather is issued before the preceding block computes. FSDP2 by itself issues it
    after that block's kernels, which hides it only if the host runs ahead of the device; with a
    small teacher's short kernels it does not.

    Returns:
        which it was: "replicate", "shard" or "node".
    """
    if mesh is None or not shards(placement, n_bytes):
        return "replicate"
    blocks: list[Any] = [
        fully_shard(block, mesh=mesh, reshard_after_forward=True) for block in block_list(model)
    ]
    root: Any = fully_shard(model, mesh=mesh, reshard_after_forward=True)
    for module, following in zip([root, *blocks], blocks, strict=False):
        module.set_modules_to_forward_prefetch([following])
    return "node" if placement == "node" else "shard"


def shards(placement: str, n_bytes: int) -> bool:
    """Whether a teacher of ``n_bytes`` is sharded under ``placement``."""
    return placement in ("shard", "node") or (
        placement == "auto" and n_bytes >= REPLICATE_BELOW_BYTES
    )

"""A layout without its processes: one rank of a world in which nothing is ever sent."""

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch.distributed as dist
from torchtitan.distributed import ParallelDims

from let_titan.upstream import blocks_counted_anew, forget_shardings


@contextmanager
def fake_ranks(
    rank: int = 0,
    *,
    dp_replicate: int = 1,
    dp_shard: int = 1,
    cp: int = 1,
    tp: int = 1,
    pp: int = 1,
) -> Iterator[ParallelDims]:
    """While active, this process is ``rank`` of a layout of these degrees, and the only one."""
    world_size = math.prod((dp_replicate, dp_shard, cp, tp, pp))
    dist.init_process_group("fake", rank=rank, world_size=world_size)
    try:
        with blocks_counted_anew():  # as this rank's own process does
            yield ParallelDims(
                dp_replicate=dp_replicate,
                dp_shard=dp_shard,
                cp=cp,
                tp=tp,
                pp=pp,
                ep=1,
                etp=1,
                world_size=world_size,
            )
    finally:
        dist.destroy_process_group()
        forget_shardings()

"""The run's layout without its processes, for preflight."""

from collections.abc import Iterator
from contextlib import contextmanager

from torchtitan.distributed import ParallelDims

from let_titan.checks import data_parallel_degrees
from let_titan.config import LetJobConfig
from let_titan.fake_ranks import fake_ranks


def is_replicated(config: LetJobConfig, world_size: int) -> bool:
    """Whether the run is DDP: every process holds everything."""
    replicate, shard = data_parallel_degrees(config, world_size)
    return replicate > 1 and shard == config.parallelism.context_parallel_degree == 1


def lacks_mixed_precision(config: LetJobConfig, world_size: int) -> bool:
    """Whether torchtitan 0.2.2 computes in training.dtype, whatever mixed_precision_param says.

    So it does under tensor or pipeline parallelism without FSDP2 (distributed/utils.py).
    """
    parallelism = config.parallelism
    shards = data_parallel_degrees(config, world_size)[1] * parallelism.context_parallel_degree
    divides = parallelism.tensor_parallel_degree * parallelism.pipeline_parallel_degree
    return shards == 1 and divides > 1


def computes_in_fp32(config: LetJobConfig, world_size: int) -> bool:
    """Whether matrices are multiplied in fp32."""
    training = config.training
    mixed = not lacks_mixed_precision(config, world_size)
    return (training.mixed_precision_param if mixed else training.dtype) == "float32"


@contextmanager
def fake_world(
    config: LetJobConfig, world_size: int, pipeline_rank: int = 0, for_ddp: bool = True
) -> Iterator[ParallelDims]:
    """Gives the config's layout over ``world_size`` processes.

    This process is the first of those that hold the same part of a pipeline, whose ranks are
    torchtitan's outermost dimension.

    With ``for_ddp`` it is alone under DDP: what one process holds of the student is what each does,
    and DDP's reducer, which asks for storage, is not built. What that reducer holds is for the
    caller to add.
    """
    replicate, shard = data_parallel_degrees(config, world_size)
    if for_ddp and is_replicated(config, world_size):
        world_size = replicate = 1
    stages = config.parallelism.pipeline_parallel_degree
    rank = pipeline_rank * (world_size // stages)
    with fake_ranks(
        rank,
        dp_replicate=replicate,
        dp_shard=shard,
        cp=config.parallelism.context_parallel_degree,
        tp=config.parallelism.tensor_parallel_degree,
        pp=stages,
    ) as dims:
        yield dims

"""[parallelism] and the number of processes."""

import math
import os

from let_titan.checks.mistakes import Mistakes
from let_titan.checks.pipeline import pipeline_mistakes
from let_titan.config import LetJobConfig, compiles
from let_titan.errors import ConfigError
from let_titan.student.flavors import FLAVORS

NOT_OF_DATA = ("tensor", "pipeline", "context")


def layout_mistakes(config: LetJobConfig, world_size: int) -> Mistakes:
    """Degrees that do not fit the processes, and keys that do not work in the layout."""
    yield from pipeline_mistakes(config)
    degrees = config.parallelism
    balancer = degrees.context_parallel_load_balancer
    if degrees.context_parallel_degree > 1 and balancer not in (None, "headtail"):
        yield ConfigError(
            f"parallelism.context_parallel_load_balancer = {balancer!r} is for masks of flex "
            'attention, which does not go with context parallelism here: set "headtail".'
        )
    yield from length_mistakes(config)
    yield from tensor_parallel_mistakes(config)
    try:
        replicate, shard = data_parallel_degrees(config, world_size)
    except ConfigError as error:
        yield error
        return
    # torchtitan shards weights over context-parallel ranks, which makes replicas of them HSDP.
    unsharded = shard == degrees.context_parallel_degree == 1
    if unsharded and 1 < replicate < world_size:
        yield ConfigError(
            f"parallelism.data_parallel_replicate_degree = {replicate} without sharding is DDP, "
            "which goes with no other kind of parallelism: set data_parallel_shard_degree above 1 "
            "for HSDP, or leave the other degrees at 1."
        )
    if config.training.enable_cpu_offload and unsharded:
        yield ConfigError(
            "training.enable_cpu_offload = true is FSDP2's, and nothing is sharded here: set "
            "parallelism.data_parallel_shard_degree above 1, or leave it off."
        )
    micro = config.training.local_batch_size * replicate * shard
    if config.training.global_batch_size > 0 and config.training.global_batch_size % micro:
        yield ConfigError(
            f"training.global_batch_size = {config.training.global_batch_size} is no multiple of "
            f"local_batch_size x data-parallel ranks = {micro}: change one of them."
        )


def length_mistakes(config: LetJobConfig) -> Mistakes:
    """Whether sequences can be cut; torchtitan itself checks training's only."""
    degrees = config.parallelism
    pieces = 2 * degrees.tensor_parallel_degree * degrees.context_parallel_degree
    lengths = {"training": config.training.seq_len}
    if config.validation.enable and pieces > 2:
        lengths["validation"] = config.validation.seq_len
    for section, length in lengths.items():
        if length % pieces:
            yield ConfigError(
                f"{section}.seq_len = {length} is no multiple of 2 x tensor x context parallel "
                f"degree = {pieces}, which torchtitan asks for: change seq_len."
            )


def tensor_parallel_mistakes(config: LetJobConfig) -> Mistakes:
    """Whether the heads can be divided, and a key that needs compiled blocks."""
    degree = config.parallelism.tensor_parallel_degree
    if degree == 1:
        return
    if config.model.flavor in FLAVORS:
        args = FLAVORS[config.model.flavor]
        heads = math.gcd(args.n_heads, args.n_kv_heads or args.n_heads)
        if heads % degree:
            fit = ", ".join(str(n) for n in range(1, heads + 1) if heads % n == 0)
            yield ConfigError(
                f"parallelism.tensor_parallel_degree = {degree} does not divide the attention "
                f"heads of model.flavor = {config.model.flavor!r} ({args.n_heads}, keys and values "
                f"{args.n_kv_heads or args.n_heads}): set it to one of {fit}."
            )
    if config.parallelism.enable_async_tensor_parallel and not compiles(config, "model"):
        yield ConfigError(
            "parallelism.enable_async_tensor_parallel = true is the compiler's: set compile.enable "
            '= true with "model" in compile.components, or leave it off.'
        )


def ring_mistakes(config: LetJobConfig) -> Mistakes:
    """torch's ring is around kernels; for fp32 torchtitan 0.2.2 leaves SDPA none on a GPU."""
    degree = config.parallelism.context_parallel_degree
    precision = config.training.mixed_precision_param
    if degree > 1 and precision == "float32":
        yield ConfigError(
            f"parallelism.context_parallel_degree = {degree} cannot be used with "
            f"training.mixed_precision_param = {precision!r} on a GPU, where fp32 attention has no "
            "kernel for torch's ring: set it to 'bfloat16', or the degree to 1."
        )


def started_processes() -> int:
    return int(os.environ.get("WORLD_SIZE", 1))


def data_parallel_degrees(config: LetJobConfig, world_size: int | None = None) -> tuple[int, int]:
    """Returns (replicate, shard) for ``world_size`` processes (None: those that were started).

    Raises:
        ConfigError: the processes do not divide.
    """
    parallelism = config.parallelism
    world_size = started_processes() if world_size is None else world_size
    replicate = parallelism.data_parallel_replicate_degree
    sizes = {name: getattr(parallelism, f"{name}_parallel_degree") for name in NOT_OF_DATA}
    others = replicate * math.prod(sizes.values())
    shard = parallelism.data_parallel_shard_degree
    shard = world_size // others if shard < 0 else shard
    if shard * others != world_size:
        raise ConfigError(
            f"{world_size} processes do not make data_parallel_replicate_degree = {replicate} x "
            f"data_parallel_shard_degree = {parallelism.data_parallel_shard_degree} x "
            + " x ".join(f"{name}_parallel_degree = {size}" for name, size in sizes.items())
            + ": change --nproc_per_node or a degree (-1 shards over what is left)."
        )
    return replicate, shard


def global_batch_size(config: LetJobConfig, world_size: int) -> int:
    """Returns the sequences of an optimiser step.

    Raises:
        ConfigError: the processes do not divide.
    """
    replicate, shard = data_parallel_degrees(config, world_size)
    training = config.training
    if training.global_batch_size > 0:
        return training.global_batch_size
    return training.local_batch_size * replicate * shard

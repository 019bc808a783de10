"""Advice: what stops no run, but what its owner would like to know before it starts."""

import shutil
from collections.abc import Iterator
from pathlib import Path

from torchtitan.config import TORCH_DTYPE_MAP

from let_titan.config import LetJobConfig, distills
from let_titan.disk import existing_parent
from let_titan.out_of_memory import memory_cures
from let_titan.plan import LetPlan
from let_titan.preflight.gpus import Gpu
from let_titan.preflight.memory import RESERVED_OVER_PREDICTED, StepMemory
from let_titan.preflight.units import gib
from let_titan.preflight.world import computes_in_fp32


def s_stop_advice(config: LetJobConfig, plan: LetPlan) -> Iterator[str]:
    """A checkpoint at s_stop is where runs without the teacher can branch off."""
    checkpoint = config.checkpoint
    last = config.training.steps
    distilled = distills(config)
    if not plan.pairs or distilled or not checkpoint.enable or plan.s_stop == last:
        return
    if plan.s_stop % checkpoint.interval:
        nearest = round(plan.s_stop / checkpoint.interval) or 1
        yield (
            f"No checkpoint falls on s_stop = {plan.s_stop}: set checkpoint.interval = "
            f"{max(1, plan.s_stop // nearest)} and let.s_stop a multiple of it."
        )


def memory_advice(config: LetJobConfig, gpu: Gpu, memory: StepMemory) -> Iterator[str]:
    """Compares the sum, and the most that may be reserved for it, with the GPU."""
    most = RESERVED_OVER_PREDICTED[1]
    if memory.lasting <= gpu.memory_bytes < most * memory.total:
        fits = memory.total <= gpu.memory_bytes
        but = f", and up to {most:g} times as much may be reserved" if fits else ""
        yield (
            f"About {gib(memory.total)} are predicted for {gpu.name} ({gib(gpu.memory_bytes)}), "
            f"{gib(memory.activations)} of them activations{but}: {memory_cures(config)}."
        )


def too_large(config: LetJobConfig, gpu: Gpu, memory: StepMemory) -> Iterator[str]:
    """Refuses a run whose lasting tensors do not fit: their sizes are exact."""
    if memory.lasting <= gpu.memory_bytes:
        return
    offloads = config.training.enable_cpu_offload
    parts = (
        "The teacher and what lasts beside it take"
        if offloads
        else ("Weights, gradients, Adam and teacher take")
    )
    yield (
        f"{parts} {gib(memory.lasting)} on each GPU, and {gpu.name} has {gib(gpu.memory_bytes)}: "
        "shard over more GPUs."
    )


def uneven_nodes(config: LetJobConfig, world_size: int, per_node: int) -> Iterator[str]:
    """Refuses uneven nodes, as the run would, which learns their size from torchrun."""
    if config.teacher.placement == "node" and world_size > per_node and world_size % per_node:
        yield (
            'teacher.placement = "node" needs equally many GPUs on every node, and '
            f"--gpus-per-node {per_node} does not divide --world-size {world_size}: give those of "
            'your machines, or choose "shard" or "replicate".'
        )


def offload_note(n_bytes: int) -> str:
    return (
        f"training.enable_cpu_offload = true: weights, gradients and Adam of a GPU, {gib(n_bytes)} "
        "at most, lie in the memory of its host, which was not checked, and not in the sum; the "
        "tokens/s and GPU-hours do not count their way to the GPU and back."
    )


def precision_advice(config: LetJobConfig, world_size: int) -> Iterator[str]:
    """Where fp32 was not asked for. torchtitan says so itself, in a line of the run's log."""
    training = config.training
    asked = training.mixed_precision_param == "float32"
    if asked or not computes_in_fp32(config, world_size):
        return
    flex = config.data.document_attention
    scores = "" if flex else ", and in fp32 attention keeps its scores whole"
    yield (
        "Tensor and pipeline parallelism without FSDP2 compute in training.dtype = 'float32', "
        f"whatever training.mixed_precision_param says{scores}: shard, too "
        "(parallelism.data_parallel_shard_degree above 1), or set training.dtype = 'bfloat16'."
    )


def checkpointing_advice(config: LetJobConfig) -> Iterator[str]:
    """Only the compiler knows what it would compute again."""
    if config.activation_checkpoint.mode == "memory_budget":
        yield (
            'activation_checkpoint.mode = "memory_budget" is priced as "none": the activations '
            "will be fewer, by as much as the compiler decides."
        )


def checkpoint_bytes(config: LetJobConfig, parameters: int) -> tuple[int, int]:
    """Returns the bytes of one checkpoint and of all that lie on the disk at a time.

    Weights and Adam's two moments in training.dtype; while the newest is written, one more lies
    there than are kept.
    """
    checkpoint = config.checkpoint
    one = 3 * TORCH_DTYPE_MAP[config.training.dtype].itemsize * parameters
    saved = -(-config.training.steps // checkpoint.interval)
    kept = checkpoint.keep_latest_k + 1 if checkpoint.keep_latest_k else saved
    return one, one * min(kept, saved)


def disk_advice(config: LetJobConfig, parameters: int) -> Iterator[str]:
    """Compares the checkpoints with what is free where they would go, if that is this machine."""
    if not config.checkpoint.enable:
        return
    one, together = checkpoint_bytes(config, parameters)
    folder = existing_parent(Path(config.job.dump_folder))
    free = shutil.disk_usage(folder).free
    if together > free:
        kept = config.checkpoint.keep_latest_k
        yield (
            f"The checkpoints take {gib(together)} ({gib(one)} each) and {str(folder)!r} has "
            f"{gib(free)} free on this machine: choose another job.dump_folder, or keep fewer: "
            f"checkpoint.keep_latest_k = {kept} keeps {kept or 'all'}, and 2 is the fewest."
        )

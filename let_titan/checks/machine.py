"""What this machine cannot do; not asked where preflight looks at a run of another machine."""

import os

import torch
from torchtitan.tools.utils import device_type

from let_titan.checks.compiler import compiler_mistakes
from let_titan.checks.float8 import (
    FLOAT8,
    FLOAT8_CAPABILITY,
    MXFP8,
    TEACHER,
    teacher_in_float8,
)
from let_titan.checks.gpus import gpu_mistakes
from let_titan.checks.layout import ring_mistakes, started_processes
from let_titan.checks.mistakes import Mistakes
from let_titan.config import LetJobConfig, compiles
from let_titan.device import HAS_ACCELERATOR
from let_titan.errors import ConfigError
from let_titan.student.probe import compiled_tensor_parallel_error

MXFP8_CAPABILITY = (10, 0)


def machine_mistakes(config: LetJobConfig) -> Mistakes:
    no_gpu = list(gpu_mistakes())
    yield from no_gpu
    yield from precision_mistakes(config)
    yield from compiler_mistakes(config)
    if not no_gpu:  # a rank without a GPU has nowhere to try it
        yield from compiled_tensor_parallel_mistakes(config)
    yield from node_mistakes(config)
    if HAS_ACCELERATOR:
        yield from ring_mistakes(config)
        return
    if config.data.document_attention:
        yield ConfigError(
            "data.document_attention = true needs a GPU, since flex attention has no backward pass "
            "on a CPU: leave it off."
        )
    degree = config.parallelism.context_parallel_degree
    if degree > 1:
        yield ConfigError(
            f"parallelism.context_parallel_degree = {degree} needs a GPU, since torch's ring "
            "attention has no kernel for a CPU: set it to 1 and shard with FSDP2 "
            "(data_parallel_shard_degree)."
        )
    for key, asked in (
        ("training.dataloader.pin_memory", config.training.dataloader.pin_memory),
        ("validation.dataloader.pin_memory", config.validation.dataloader.pin_memory),
        ("profiling.enable_profiling", config.profiling.enable_profiling),
        ("profiling.enable_memory_snapshot", config.profiling.enable_memory_snapshot),
        ("training.gc_debug", config.training.gc_debug),  # looks for cycles that hold GPU memory
    ):
        if asked:
            yield ConfigError(f"{key} = true needs a GPU, and here is none: leave it off.")
    if config.training.enable_cpu_offload:
        yield ConfigError(
            "training.enable_cpu_offload = true needs a GPU to offload from, and here is none: "
            "leave it off."
        )


def precision_mistakes(config: LetJobConfig) -> Mistakes:
    capability = torch.cuda.get_device_capability() if torch.cuda.is_available() else (0, 0)
    here = f"this GPU has {capability[0]}.{capability[1]}" if any(capability) else "here is none"
    emulated = config.quantize.linear.float8.emulate
    missing = capability < FLOAT8_CAPABILITY and not emulated
    for asked, wanted in (
        (f"model.converters has {FLOAT8!r}, which", FLOAT8 in config.model.converters),
        (TEACHER, teacher_in_float8(config)),
    ):
        if wanted and missing:
            yield ConfigError(
                f"{asked} needs a GPU of compute capability 8.9 or later ({here}): leave it out "
                "and stay in bfloat16, or, for a test, set quantize.linear.float8.emulate = true."
            )
    if MXFP8 in config.model.converters and capability < MXFP8_CAPABILITY:
        yield ConfigError(
            f"model.converters has {MXFP8!r}, which needs a GPU of compute capability 10.0 or "
            f"later ({here}): leave it out."
        )


def node_mistakes(config: LetJobConfig) -> Mistakes:
    """Whether the processes know how many share their node, as torchrun tells them."""
    world, per_node = started_processes(), os.environ.get("LOCAL_WORLD_SIZE", "")
    if config.teacher.placement != "node" or world == 1:
        return
    if not per_node.isdecimal() or int(per_node) < 1 or world % int(per_node):
        yield ConfigError(
            f'teacher.placement = "node" needs equally many processes on every node, and '
            f"LOCAL_WORLD_SIZE = {per_node!r} does not divide {world}: start them with torchrun "
            '--nproc_per_node N, which sets it, or choose "shard" or "replicate".'
        )


def compiled_tensor_parallel_mistakes(config: LetJobConfig) -> Mistakes:
    """Not every torch compiles tensor-parallel blocks; this one is asked, whatever the device."""
    degree = config.parallelism.tensor_parallel_degree
    if degree <= 1 or not compiles(config, "model"):
        return
    error = compiled_tensor_parallel_error(config)
    if error:
        yield ConfigError(
            f"parallelism.tensor_parallel_degree = {degree} with compiled blocks and "
            f"activation_checkpoint.mode = {config.activation_checkpoint.mode!r} fails in torch "
            f'{torch.__version__} on a {device_type} ({error}): compile "loss" alone '
            "(compile.components), or change activation_checkpoint."
        )

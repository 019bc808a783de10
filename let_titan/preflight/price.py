"""A run's price: its ``Cost`` by config, GPU and sizes, and the report's figures of each part."""

import math
from dataclasses import asdict
from typing import Any

from let_titan.alignment import dividing_axes
from let_titan.checks import data_parallel_degrees
from let_titan.checks.layout import global_batch_size
from let_titan.checks.pipeline import count_stages, rows_divided_over
from let_titan.config import LetJobConfig
from let_titan.plan import LetPlan
from let_titan.preflight.advice import checkpoint_bytes
from let_titan.preflight.cost import Cost, busy_share
from let_titan.preflight.findings import uses_float8, vocabulary_of
from let_titan.preflight.gpus import Gpu
from let_titan.preflight.memory import StepMemory
from let_titan.preflight.student import Student
from let_titan.preflight.world import computes_in_fp32
from let_titan.student.flavors import FLAVORS


def assumed_mfu(config: LetJobConfig, gpu: Gpu, mfu: float | None) -> float:
    return mfu or (gpu.mfu_float8 if uses_float8(config) else None) or gpu.mfu


def peak_of(config: LetJobConfig, world_size: int, gpu: Gpu) -> tuple[float, str]:
    """Returns the FLOP/s of which the MFU is a share, and what a reader should know of that."""
    if uses_float8(config) or not computes_in_fp32(config, world_size):
        return gpu.peak_flops, ""
    peak = peak_in("float32", gpu)
    return peak, f"; here the same share of the fp32 peak, {peak / 1e12:g} TFLOP/s"


def peak_in(dtype: str, gpu: Gpu) -> float:
    return gpu.peak_flops_fp32 if dtype == "float32" else gpu.peak_flops


def cost_of(
    config: LetJobConfig,
    world_size: int,
    plan: LetPlan,
    gpu: Gpu,
    student: Student,
    teacher_flops: int,
    mfu: float | None = None,
) -> Cost:
    """Reckons the run's price; the teacher's FLOPs are for a token of the student's."""
    sizes = rows_divided_over(config)
    shared = dividing_axes(config.training.local_batch_size, sizes)
    times = math.prod(size for axis, size in sizes.items() if axis not in shared)
    if "pp" not in sizes:  # the other ranks of the pipeline wait for the owner
        times *= config.parallelism.pipeline_parallel_degree
    peak, _ = peak_of(config, world_size, gpu)
    return Cost(
        student_flops=student.flops_per_token,
        teacher_flops=teacher_flops,
        tokens=batch_facts(config, world_size)["tokens"],
        let_share=plan.s_stop / config.training.steps,
        flops_per_s=world_size * peak * assumed_mfu(config, gpu, mfu),
        n_gpus=world_size,
        teacher_times=times,
        teacher_speed=peak_in(config.teacher.dtype, gpu) / peak,
        busy=pipeline_busy(config),
    )


def pipeline_busy(config: LetJobConfig) -> float:
    """Returns the share of a step without the pipeline's bubble; 1 without a pipeline."""
    parallelism = config.parallelism
    degree = parallelism.pipeline_parallel_degree
    if degree == 1:
        return 1.0
    stages = count_stages(config, FLAVORS[config.model.flavor].n_layers)
    microbatches = config.training.local_batch_size // parallelism.pipeline_parallel_microbatch_size
    return busy_share(degree, stages // degree, microbatches)


def batch_facts(config: LetJobConfig, world_size: int) -> dict[str, int]:
    training, rows = config.training, global_batch_size(config, world_size)
    replicate, shard = data_parallel_degrees(config, world_size)
    return {
        "data_parallel_replicate": replicate,
        "data_parallel_shard": shard,
        "local_batch_size": training.local_batch_size,
        "accumulation": rows // (training.local_batch_size * replicate * shard),
        "sequences_per_step": rows,
        "seq_len": training.seq_len,
        "tokens_per_step": rows * training.seq_len,
        "steps": training.steps,
        "tokens": rows * training.seq_len * training.steps,
    }


def student_facts(config: LetJobConfig, student: Student) -> dict[str, Any]:
    return {
        "flavor": config.model.flavor,
        "vocabulary": vocabulary_of(config),
        "embedding_rows": student.model.model_args.vocab_size,
        "parameters": student.parameters,
        "block_parameters": student.block_parameters,
        "flops_per_token": student.flops_per_token,
    }


def memory_facts(memory: StepMemory, gpu: Gpu) -> dict[str, Any]:
    return {
        **asdict(memory),
        "total": memory.total,
        "of": gpu.memory_bytes,
    }


def cost_facts(
    cost: Cost, config: LetJobConfig, world_size: int, mfu: float | None, gpu: Gpu
) -> dict[str, Any]:
    source = gpu.mfu_source if mfu is None else "--mfu"
    return {
        "flops_per_token_after": cost.student_flops,
        "flops_per_token_in_let_phase": cost.student_flops + cost.teacher_flops,
        "overhead_in_let_phase": cost.overhead_in_let_phase,
        "overhead_over_run": cost.overhead_over_run,
        "teacher_times": cost.teacher_times,
        "pipeline_bubble": 1 - cost.busy,
        "flops": cost.flops,
        "mfu_assumed": assumed_mfu(config, gpu, mfu),
        "mfu_source": source + peak_of(config, world_size, gpu)[1],
        "tokens_per_s_in_let_phase": cost.tokens_per_s_in_let_phase,
        "tokens_per_s_after": cost.tokens_per_s_after,
        "gpu_hours": cost.gpu_hours,
        "hours": cost.gpu_hours / cost.n_gpus,
    }


def checkpoint_facts(config: LetJobConfig, student: Student) -> dict[str, int] | None:
    if not config.checkpoint.enable:
        return None
    one, together = checkpoint_bytes(config, student.parameters)
    return {"bytes_each": one, "bytes_together": together}

"""[parallelism] of a pipeline: stages, schedule, microbatches."""

import math

from torchtitan.distributed.pipeline_parallel import generate_llm_fqn_per_model_part

from let_titan.alignment import dividing_axes
from let_titan.checks.choices import not_among
from let_titan.checks.mistakes import Mistakes
from let_titan.config import LetJobConfig, compiles
from let_titan.errors import ConfigError
from let_titan.student.flavors import FLAVORS

STAGES_PER_RANK = {
    "1F1B": 1,
    "GPipe": 1,
    "Interleaved1F1B": 2,
    "InterleavedZeroBubble": 2,
    "LoopedBFS": 2,
    "ZBVZeroBubble": 2,
}
"""The schedules whose gradients are held against one process, and torchtitan's default stages."""

ZERO_BUBBLE = ("InterleavedZeroBubble", "ZBVZeroBubble")
IN_ROUNDS = ("Interleaved1F1B", "InterleavedZeroBubble")


def pipeline_mistakes(config: LetJobConfig) -> Mistakes:
    parallelism = config.parallelism
    if parallelism.pipeline_parallel_degree == 1:
        return
    schedule = parallelism.pipeline_parallel_schedule
    unknown = list(not_among("parallelism.pipeline_parallel_schedule", schedule, STAGES_PER_RANK))
    yield from unknown
    for key in ("pipeline_parallel_schedule_csv", "module_fqns_per_model_part"):
        if getattr(parallelism, key):
            yield ConfigError(
                f"parallelism.{key} is not supported: leave it out; stages follow from "
                "pipeline_parallel_schedule and pipeline_parallel_layers_per_stage."
            )
    if schedule in ZERO_BUBBLE and compiles(config, "model"):
        yield ConfigError(
            f"parallelism.pipeline_parallel_schedule = {schedule!r} takes weights' gradients apart "
            "from inputs', which compiled blocks do not: set compile.enable = false, compile "
            '"loss" alone (compile.components), or choose "Interleaved1F1B".'
        )
    yield from microbatch_mistakes(config)
    if config.let.enable and config.teacher.pipeline == "all":
        yield from teacher_rows_mistakes(config)
    if not unknown and config.model.flavor in FLAVORS:
        yield from stage_mistakes(config, FLAVORS[config.model.flavor].n_layers)


def microbatch_mistakes(config: LetJobConfig) -> Mistakes:
    micro = config.parallelism.pipeline_parallel_microbatch_size
    training, validation = config.training, config.validation
    if micro < 1 or training.local_batch_size % micro:
        yield ConfigError(
            f"parallelism.pipeline_parallel_microbatch_size = {micro} does not divide "
            f"training.local_batch_size = {training.local_batch_size}: change one of them."
        )
    else:
        yield from count_mistakes(config, training.local_batch_size // micro)
    if validation.enable and validation.seq_len != training.seq_len:
        yield ConfigError(
            f"validation.seq_len = {validation.seq_len} must be training.seq_len = "
            f"{training.seq_len} under pipeline parallelism, whose stages exchange tensors of one "
            "shape."
        )


def teacher_rows_mistakes(config: LetJobConfig) -> Mistakes:
    """Whether the teacher's rows can be divided among the pipeline's ranks."""
    if config.teacher.cache:
        yield ConfigError(
            'teacher.pipeline = "all" divides what the teacher computes, and with teacher.cache '
            "its states are read where they are needed: leave one of them out."
        )
    degrees = rows_divided_over(config)
    if "pp" not in dividing_axes(config.training.local_batch_size, degrees):
        yield ConfigError(
            f'teacher.pipeline = "all" divides training.local_batch_size = '
            f"{config.training.local_batch_size} rows among tensor, context and pipeline ranks "
            f"({' x '.join(map(str, degrees.values()))}), which has no equal shares: change the "
            'batch size, or set teacher.pipeline = "owner".'
        )


def rows_divided_over(config: LetJobConfig) -> dict[str, int]:
    """Returns the ranks that hold the same batch and read for the teacher, by axis of the mesh."""
    degrees = config.parallelism
    sizes = {"tp": degrees.tensor_parallel_degree, "cp": degrees.context_parallel_degree}
    if config.teacher.pipeline == "all":
        sizes["pp"] = degrees.pipeline_parallel_degree
    return sizes


def count_mistakes(config: LetJobConfig, count: int) -> Mistakes:
    """Whether the schedule can order ``count`` microbatches."""
    degree = config.parallelism.pipeline_parallel_degree
    schedule = config.parallelism.pipeline_parallel_schedule
    cure = "change training.local_batch_size or parallelism.pipeline_parallel_microbatch_size."
    if schedule == "1F1B" and count < degree:
        yield ConfigError(
            f"parallelism.pipeline_parallel_schedule = '1F1B' needs a microbatch for each of "
            f"{degree} stages; local_batch_size / pipeline_parallel_microbatch_size is {count}: "
            f"{cure}"
        )
    rounds = max(1, count // degree)
    if schedule in IN_ROUNDS and count % rounds:
        yield ConfigError(
            f"parallelism.pipeline_parallel_schedule = {schedule!r} takes microbatches in {rounds} "
            f"equal rounds, and local_batch_size / pipeline_parallel_microbatch_size is {count}: "
            f"{cure}"
        )


def count_stages(config: LetJobConfig, n_layers: int) -> int:
    """Returns the stages of all ranks that torchtitan will make of ``n_layers`` blocks."""
    parallelism = config.parallelism
    per_stage = parallelism.pipeline_parallel_layers_per_stage
    if per_stage is None:
        per_rank = STAGES_PER_RANK[parallelism.pipeline_parallel_schedule]
        return parallelism.pipeline_parallel_degree * per_rank
    ends = (
        parallelism.pipeline_parallel_first_stage_less_layers
        + parallelism.pipeline_parallel_last_stage_less_layers
    )
    return math.ceil((n_layers + ends) / per_stage) if per_stage > 0 else 0


def stage_mistakes(config: LetJobConfig, n_layers: int) -> Mistakes:
    """Whether torchtitan can split ``n_layers`` blocks, embedding and output into stages."""
    parallelism = config.parallelism
    degree = parallelism.pipeline_parallel_degree
    per_rank = STAGES_PER_RANK[parallelism.pipeline_parallel_schedule]
    ends = (
        parallelism.pipeline_parallel_first_stage_less_layers,
        parallelism.pipeline_parallel_last_stage_less_layers,
    )
    stages = count_stages(config, n_layers)
    per_stage = parallelism.pipeline_parallel_layers_per_stage
    if per_stage is not None:
        fits = stages == degree if per_rank == 1 else stages >= 2 * degree
        if parallelism.pipeline_parallel_schedule == "ZBVZeroBubble":
            fits = stages == 2 * degree
        if not fits or stages % degree:
            yield ConfigError(
                f"parallelism.pipeline_parallel_layers_per_stage = {per_stage} makes {stages} "
                f"stages of {n_layers} blocks for {degree} ranks under "
                f"{parallelism.pipeline_parallel_schedule!r}: leave it out, or let the ranks have "
                f"{'one stage' if per_rank == 1 else 'two stages (ZBV) or more'} each."
            )
            return
    try:
        generate_llm_fqn_per_model_part(stages, n_layers, *ends)
    except ValueError as error:
        yield ConfigError(
            f"parallelism.pipeline_parallel_degree = {degree} cannot split {n_layers} blocks into "
            f"{stages} stages ({error}): lower it, or the less_layers keys."
        )

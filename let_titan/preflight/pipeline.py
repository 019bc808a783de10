"""A pipeline's memory: each kind of stage measured once, each rank's step walked in its order."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import CheckpointWrapper
from torch.distributed.pipelining import PipelineStage

from let_titan.config import LetJobConfig
from let_titan.plan import LetPlan
from let_titan.preflight.memory import StepMemory, batch_of, local_bytes, tensors_in
from let_titan.preflight.stage import StageMemory, measure_stage
from let_titan.preflight.student import Student, build_pipeline
from let_titan.preflight.world import fake_world
from let_titan.upstream import PipelineAction, fake_tensors, pipeline_actions, pipeline_stages

LAST = ("weights", "gradients", "adam", "buffers")
"""The parts of a stage's memory that last."""

Kind = tuple[bool, bool, bool, tuple[int, ...], tuple[bool, ...], frozenset[str]]
"""What tells stages apart: first, last, on a rank with a teacher, which of its blocks align, which
are checkpointed, and what the schedule has it do."""


def measure_pipeline(
    student: Student,
    config: LetJobConfig,
    world_size: int,
    plan: LetPlan,
    teacher_width: int = 0,
    teacher_bytes: int = 0,
) -> list[StepMemory]:
    """Measures every rank of the pipeline, each on its process with the largest shards.

    Args:
        student: whole.
        config: the run's.
        world_size: its processes.
        plan: the teacher is on the ranks that own a block which it aligns.
        teacher_width: of its states.
        teacher_bytes: of its weights on a rank that has it.
    """
    measured: dict[Kind, StageMemory] = {}
    ranks = []
    for rank in range(config.parallelism.pipeline_parallel_degree):
        with fake_world(config, world_size, rank) as dims:
            schedule = build_pipeline(student, config, dims)
            stages, actions = pipeline_stages(schedule), pipeline_actions(schedule, rank)
            taught = any(aligned_in(stage, plan) for stage in stages)
            here = plan if taught else LetPlan()
            found = {}
            for stage in stages:
                does = frozenset(a.kind for a in actions if a.stage == stage.stage_index)
                kind = kind_of(stage, here, does)
                if kind not in measured:
                    measured[kind] = measure_stage(stage, does, config, dims, here, teacher_width)
                found[stage.stage_index] = measured[kind]
            with fake_tensors():
                batch = local_bytes(tensors_in(batch_of(config, here, teacher_width, dims)))
        activations = batch + most_live(actions, found)
        ranks.append(
            StepMemory(
                **{part: sum(s.lasting[part] for s in found.values()) for part in LAST},
                activations=activations,
                teacher=teacher_bytes if taught or config.teacher.pipeline == "all" else 0,
            )
        )
    return ranks


def aligned_in(stage: PipelineStage, plan: LetPlan) -> tuple[int, ...]:
    """Returns which of the stage's blocks, from 0, are aligned."""
    blocks = [int(name) + 1 for name in layers_of(stage)]
    return tuple(blocks.index(p.block) for p in plan.pairs if p.block in blocks)


def kind_of(stage: PipelineStage, plan: LetPlan, does: frozenset[str]) -> Kind:
    """Returns what its memory depends on."""
    layers = layers_of(stage).values()
    checkpointed = tuple(isinstance(block, CheckpointWrapper) for block in layers)
    aligned = aligned_in(stage, plan)
    return stage.is_first, stage.is_last, bool(plan.pairs), aligned, checkpointed, does


def layers_of(stage: PipelineStage) -> Any:
    """Returns the stage's blocks by name, which counts from 0."""
    return stage.submod.layers


def most_live(actions: Sequence[PipelineAction], stages: Mapping[int, StageMemory]) -> int:
    """Walks through a rank's step.

    torch's schedule refers to the last forward's output until the next forward has returned, so it
    stays live after its microbatch's backward: ``beyond_its_backward``.

    Args:
        actions: in order.
        stages: by number.

    Returns:
        the most bytes that live at a time beyond what lasts.
    """
    peak = live = sum(stage.buffers for stage in stages.values())
    begun: set[tuple[int, str]] = set()
    newest: tuple[int, int | None] | None = None
    beyond_its_backward = 0
    for number, kind, microbatch in actions:
        stage = stages[number]
        step = "B" if kind == "W" else kind  # either is the first to make gradients
        phases = stage.later if (number, step) in begun or kind not in stage.first else stage.first
        begun.add((number, step))
        peak = max(peak, live + beyond_its_backward + phases[kind].peak)
        live += phases[kind].left
        if kind == "F":
            newest, beyond_its_backward = (number, microbatch), 0
        elif kind in stage.output_until and newest == (number, microbatch):
            beyond_its_backward = stage.output
    return peak

"""A pipeline's memory: each kind of stage measured once, each rank's step walked in its order."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch.distributed.pipelining import PipelineStage
from torchtitan.components.loss import cross_entropy_loss
from torchtitan.config import TORCH_DTYPE_MAP
from torchtitan.distributed import ParallelDims
from torchtitan.tools import utils as titan_utils

from let_titan.config import LetJobConfig
from let_titan.plan import LetPlan
from let_titan.preflight.memory import (
    StepMemory,
    batch_of,
    beyond_lasting,
    local_bytes,
    tensors_in,
    without_storage,
)
from let_titan.preflight.student import Student, build_pipeline
from let_titan.preflight.world import fake_world
from let_titan.upstream import fake_tensors, memory_tracker, pipeline_actions, pipeline_stages


@dataclass(frozen=True)
class Phase:
    """One thing that a stage does.

    Attributes:
        peak: the most live bytes meanwhile, more than there were before.
        left: the bytes that it leaves, less those that it frees.
    """

    peak: int
    left: int


@dataclass(frozen=True)
class StageMemory:
    """Bytes of a stage.

    Attributes:
        lasting: of its tensors that last, by part.
        buffers: those that torch allocates to receive states and gradients, for every microbatch.
        first: the step's first forward (which gathers the weights) and backward (which makes the
            unsharded gradients): "F" and "B".
        later: the others', and "REDUCE_GRAD".
    """

    lasting: dict[str, int]
    buffers: int
    first: dict[str, Phase]
    later: dict[str, Phase]


LAST = ("weights", "gradients", "adam", "buffers")
"""The parts of a stage's memory that last."""

Kind = tuple[bool, bool, bool, tuple[int, ...]]
"""What tells stages apart: first, last, on a rank with a teacher, which of its blocks align."""


def measure_pipeline(
    student: Student,
    config: LetJobConfig,
    world_size: int,
    plan: LetPlan,
    teacher_width: int = 0,
    teacher_bytes: int = 0,
) -> list[StepMemory]:
    """Measures every rank of the pipeline, of each that with the largest shards.

    Args:
        student: whole.
        config: the run's.
        world_size: its processes.
        plan: the teacher is on the ranks that own a block which it aligns.
        teacher_width: of its states.
        teacher_bytes: of its weights on such a rank.
    """
    measured: dict[tuple[Kind, int], StageMemory] = {}
    ranks = []
    for rank in range(config.parallelism.pipeline_parallel_degree):
        with fake_world(config, world_size, rank) as dims:
            schedule = build_pipeline(student, config, dims)
            stages = pipeline_stages(schedule)
            taught = any(aligned_in(stage, plan) for stage in stages)
            here = plan if taught else LetPlan()
            found = {}
            for stage in stages:
                kind = kind_of(stage, here)
                if kind not in measured:
                    measured[kind] = measure_stage(stage, config, dims, here, teacher_width)
                found[stage.stage_index] = measured[kind]
            with fake_tensors():
                batch = local_bytes(tensors_in(batch_of(config, here, teacher_width, dims.tp)))
        activations = batch + most_live(pipeline_actions(schedule, rank), found)
        ranks.append(
            StepMemory(
                **{part: sum(s.lasting[part] for s in found.values()) for part in LAST},
                activations=activations,
                teacher=teacher_bytes if taught else 0,
            )
        )
    return ranks


def aligned_in(stage: PipelineStage, plan: LetPlan) -> tuple[int, ...]:
    """Returns which of the stage's blocks, from 0, are aligned."""
    blocks = [int(name) + 1 for name in layers_of(stage)]
    return tuple(blocks.index(p.block) for p in plan.pairs if p.block in blocks)


def kind_of(stage: PipelineStage, plan: LetPlan) -> tuple[Kind, int]:
    """Returns what its memory depends on, and its number of blocks."""
    kind = (stage.is_first, stage.is_last, bool(plan.pairs), aligned_in(stage, plan))
    return kind, len(layers_of(stage))


def layers_of(stage: PipelineStage) -> Any:
    """Returns the stage's blocks by name, which counts from 0."""
    return stage.submod.layers


def most_live(actions: Sequence[tuple[int, str]], stages: Mapping[int, StageMemory]) -> int:
    """Walks through a rank's step.

    Args:
        actions: (stage, "F", "B" or "REDUCE_GRAD"), in order.
        stages: by number.

    Returns:
        the most bytes that live at a time beyond what lasts.
    """
    peak = live = sum(stage.buffers for stage in stages.values())
    begun = set()
    for action in actions:
        number, kind = action
        phases = stages[number].later if action in begun else stages[number].first
        phase = phases.get(kind, stages[number].later[kind])
        begun.add(action)
        peak = max(peak, live + phase.peak)
        live += phase.left
    return peak


def measure_stage(
    stage: PipelineStage,
    config: LetJobConfig,
    dims: ParallelDims,
    plan: LetPlan,
    teacher_width: int,
) -> StageMemory:
    """Takes a stage through two microbatches and the reduction of their gradients."""

    def forward_backward() -> tuple[int, list[Phase]]:
        return measure_phases(Microbatches(stage, config, dims, plan, teacher_width))

    model: Any = stage.submod
    (buffers, phases), lasting = without_storage(
        model, config, dims, plan, teacher_width, forward_backward
    )
    first = dict(zip("FB", phases[:2], strict=True))
    later = dict(zip(("F", "B", "REDUCE_GRAD"), phases[2:], strict=True))
    return StageMemory(lasting, buffers, first, later)


class Microbatches:
    """A stage's inputs, and what its schedule does with them.

    Args:
        stage: with storage.
        config, dims, plan, teacher_width: as ever.
    """

    def __init__(
        self,
        stage: PipelineStage,
        config: LetJobConfig,
        dims: ParallelDims,
        plan: LetPlan,
        teacher_width: int,
    ) -> None:
        self.stage = stage
        micro = config.parallelism.pipeline_parallel_microbatch_size
        self.n = config.training.local_batch_size // micro
        self.batch = batch_of(config, plan, teacher_width, dims.tp)
        model: Any = stage.submod
        shape = (micro, config.training.seq_len // dims.tp, model.model_args.dim)
        training = config.training
        dtype = training.mixed_precision_param if dims.fsdp_enabled else training.dtype
        self.dtype = TORCH_DTYPE_MAP[dtype]
        self.states = [] if stage.is_first else self._received(shape)
        self.gradients = [] if stage.is_last else self._received(shape)
        self.output: torch.Tensor | None = None

    def _received(self, shape: tuple[int, ...]) -> list[torch.Tensor]:
        device = titan_utils.device_type
        return [torch.empty(shape, dtype=self.dtype, device=device) for _ in range(self.n)]

    def _chunk(self, i: int) -> dict[str, Any]:
        """Returns microbatch ``i`` of the whole batch's arguments."""

        def cut(value: Any) -> Any:
            if isinstance(value, list):
                return [cut(one) for one in value]
            return value.chunk(self.n)[i] if isinstance(value, torch.Tensor) else value

        return {name: cut(value) for name, value in self.batch.items()}

    def forward(self, i: int) -> None:
        arguments = self._chunk(i)
        tokens = arguments.pop("tokens")
        state = tokens if self.stage.is_first else self.states[i].requires_grad_()
        # Until this returns, the schedule holds on to what the microbatch before gave.
        self.output = self.stage.forward_maybe_with_nosync(state, **arguments)
        self.inputs, self.result = [state], self.output
        if self.stage.is_last:
            self.result = cross_entropy_loss(self.output, tokens)

    def backward(self, i: int) -> None:
        gradients = None if self.stage.is_last else (self.gradients[i],)
        result = self.result if self.stage.is_last else (self.result,)
        del self.result
        self.stage.backward_maybe_with_nosync(
            "full",
            {"stage_output": result, "output_grads": gradients, "input_values": self.inputs},
        )


def measure_phases(run: Microbatches) -> tuple[int, list[Phase]]:
    """Returns the bytes that wait for states and gradients, and F, B, F, B, REDUCE_GRAD."""
    received = [*run.states, *run.gradients]
    tracker = memory_tracker(run.stage.submod, [*tensors_in(run.batch), *received])

    def phase(action: Callable[[], None]) -> Phase:
        before = beyond_lasting(tracker.get_tracker_snapshot("current"))
        with tracker:
            action()
        peak, after = (beyond_lasting(tracker.get_tracker_snapshot(x)) for x in ("peak", "current"))
        return Phase(peak - before, after - before)

    phases = []
    for i in range(2):
        tracker.reset_mod_stats()
        phases += [phase(partial(run.forward, i)), phase(partial(run.backward, i))]
    phases.append(phase(partial(run.stage.perform_reduce_grad, 1)))
    return local_bytes(received), phases

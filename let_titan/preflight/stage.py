"""One stage of a pipeline: what each thing that it does allocates, and what it leaves."""

from collections.abc import Callable, Iterable
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
    batch_of,
    beyond_lasting,
    local_bytes,
    tensors_in,
    without_storage,
)
from let_titan.upstream import memory_tracker


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
        buffers: what torch allocates to receive states and gradients of every microbatch.
        output: what it gives for a microbatch.
        output_until: the kinds of action after each of which the stage no longer holds that.
        first: the step's first forward (which gathers the weights) and backward (which makes the
            unsharded gradients), by kind.
        later: the others', and "REDUCE_GRAD".
    """

    lasting: dict[str, int]
    buffers: int
    output: int
    output_until: str
    first: dict[str, Phase]
    later: dict[str, Phase]


def measure_stage(
    stage: PipelineStage,
    kinds: Iterable[str],
    config: LetJobConfig,
    dims: ParallelDims,
    plan: LetPlan,
    teacher_width: int,
) -> StageMemory:
    """Takes a stage through two microbatches and the reduction of their gradients.

    Args:
        stage: on meta; it is used up.
        kinds: what its schedule has it do; with "I" among it backward is taken in halves, too.
        config, dims, plan, teacher_width: as ``measure_step`` takes them.
    """
    model: Any = stage.submod

    def forward_backward() -> tuple[Microbatches, tuple[dict[str, Phase], dict[str, Phase]]]:
        run = Microbatches(stage, config, dims, plan, teacher_width)
        tracker = memory_tracker(model, [*tensors_in(run.batch), *run.received])
        found = measure_phases(run, tracker, "B")
        if "I" in kinds:
            model.zero_grad()
            for whole, halves in zip(found, measure_phases(run, tracker, "IW"), strict=True):
                whole |= in_halves(whole["B"], halves)
        return run, found

    (run, (first, later)), lasting = without_storage(
        model, config, dims, plan, teacher_width, forward_backward
    )
    until = "BI" if stage.is_last else "BW"  # what has a loss needs no output for W
    return StageMemory(lasting, local_bytes(run.received), run.output, until, first, later)


def in_halves(whole: Phase, halves: dict[str, Phase]) -> dict[str, Phase]:
    """Returns both halves of a backward, "I" and "W", which together leave what the whole does.

    What the second half frees is inferred: the tracker's hooks keep the graph of the first alive,
    with all that is saved in it.
    """
    left = whole.left - halves["I"].left
    return {"I": halves["I"], "W": Phase(halves["W"].peak, left)}


class Microbatches:
    """A stage's inputs, and what its schedule does with them.

    Args:
        stage: with storage.
        config, dims, plan, teacher_width: as ``measure_step`` takes them.
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
        self.batch = batch_of(config, plan, teacher_width, dims)
        model: Any = stage.submod
        shape = (micro, config.training.seq_len // (dims.cp * dims.tp), model.model_args.dim)
        training = config.training
        dtype = training.mixed_precision_param if dims.fsdp_enabled else training.dtype
        self.dtype = TORCH_DTYPE_MAP[dtype]
        self.states = [] if stage.is_first else self._received(shape)
        self.gradients = [] if stage.is_last else self._received(shape)
        self.output = 0
        self.forwarded: dict[int, dict[str, Any]] = {}
        self.halved: dict[int, dict[str, Any]] = {}

    @property
    def received(self) -> list[torch.Tensor]:
        return [*self.states, *self.gradients]

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
        # The tracker asks whether backward reaches a module's inputs, which torch does not say of a
        # leaf where inputs' gradients are taken separately: so it is shown a view.
        shown = state.view_as(state)
        output = result = self.stage.forward_maybe_with_nosync(shown, **arguments)
        if self.stage.is_last:
            result = cross_entropy_loss(output, tokens)
        self.output = local_bytes([output])
        self.forwarded[i] = {"output": output, "input_values": [state], "stage_output": (result,)}

    def _backward_of(self, i: int) -> dict[str, Any]:
        """Returns what a backward of microbatch ``i`` is given, and holds on to its output."""
        gradients = None if self.stage.is_last else (self.gradients[i],)
        return self.forwarded.pop(i) | {"output_grads": gradients}

    def backward(self, i: int) -> None:
        given = self._backward_of(i)
        if self.stage.is_last:
            (given["stage_output"],) = given["stage_output"]
        self.stage.backward_maybe_with_nosync("full", given)

    def backward_of_inputs(self, i: int) -> None:
        """The first stage has none to speak of: it leaves all to ``backward_of_weights``."""
        given = self._backward_of(i)
        if not self.stage.is_first:
            _, given["param_groups"] = self.stage.backward_maybe_with_nosync("input", given)
        if self.stage.is_last:
            del given["output"]
        self.halved[i] = given

    def backward_of_weights(self, i: int) -> None:
        half = "full" if self.stage.is_first else "weight"
        self.stage.backward_maybe_with_nosync(half, self.halved.pop(i))


def measure_phases(
    run: Microbatches, tracker: Any, backward: str
) -> tuple[dict[str, Phase], dict[str, Phase]]:
    """Takes two microbatches forward, both back and reduces.

    Args:
        run: with no gradients.
        tracker: of its stage.
        backward: "B", or "IW".

    Returns:
        what the first of each kind did, and what the second and the reduction did.
    """
    actions = {
        "F": run.forward,
        "B": run.backward,
        "I": run.backward_of_inputs,
        "W": run.backward_of_weights,
    }

    def phase(action: Callable[[], None]) -> Phase:
        before = beyond_lasting(tracker.get_tracker_snapshot("current"))
        with tracker:
            action()
        peak, after = (beyond_lasting(tracker.get_tracker_snapshot(x)) for x in ("peak", "current"))
        return Phase(peak - before, after - before)

    found: tuple[dict[str, Phase], dict[str, Phase]] = ({}, {})
    # The tracker expects each module's forward once, and at its backward the notes of that.
    notes = [type(tracker.memory_tracking)() for _ in found]
    for kinds in ("F", backward):
        for i in range(2):
            tracker.memory_tracking = notes[i]
            for kind in kinds:
                found[i][kind] = phase(partial(actions[kind], i))
    found[1]["REDUCE_GRAD"] = phase(partial(run.stage.perform_reduce_grad, 1))
    return found

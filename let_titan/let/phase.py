"""LET's phase of a run: while lambda(s) > 0 there is a teacher beside the student."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import DeviceMesh
from torchtitan.components.loss import IGNORE_INDEX
from torchtitan.components.optimizer import OptimizersContainer
from torchtitan.distributed import ParallelDims

from let_titan.alignment import LEARNED, all_rows, map_flops, rows_of_this_rank, share_of_batch
from let_titan.batch import Batch, taken_out
from let_titan.collectives import gathered
from let_titan.config import LetJobConfig
from let_titan.device import free_cached_memory, memory_gib
from let_titan.let.build import (
    build_alignment,
    build_diagnostics,
    build_distillation,
    build_fit,
    owns_aligned_block,
)
from let_titan.let.cache import RunCache
from let_titan.let.learned_maps import LearnedMaps
from let_titan.let.pipeline_rows import PipelineRows, ranks_where
from let_titan.let.targets import TargetCount, states_at
from let_titan.let.teacher import load_head, load_model
from let_titan.plan import LetPlan, let_in_use
from let_titan.state_cache import CachedTeacher, WritingTeacher
from let_titan.student.flavors import FLAVORS
from let_titan.teacher import Teacher, TeacherStates, prepare_teacher
from let_titan.teacher.placement import leave, processes_per_node, shard_mesh


class LetPhase:
    """Loads the teacher, gives its states to the student's forward, and lets it go.

    The teacher is no part of ``model_parts``: no optimizer, clipping or checkpoint meets it.

    Args:
        plan: what is aligned with what. Without pairs nothing here does anything.
        config: the run's.
        dims: its layout.
        model_parts: the student, or this rank's stages of it; each is given what the plan asks for.
        device: where the teacher will be.
        optimizers: of the student, and of learned width maps.
        cache: of the teacher's states, if the run has one.
    """

    def __init__(
        self,
        plan: LetPlan,
        config: LetJobConfig,
        dims: ParallelDims,
        model_parts: Sequence[Any],
        device: torch.device,
        optimizers: OptimizersContainer,
        cache: RunCache | None = None,
    ) -> None:
        self.plan, self.config, self.dims = plan, config, dims
        self.device = device
        self.alignment = build_alignment(plan, config)
        self.distillation = build_distillation(config, dims.tp)
        self.diagnostics = build_diagnostics(plan, config, device)
        self.teacher: Teacher | CachedTeacher | WritingTeacher | None = None
        self.cache = cache
        self._mesh: DeviceMesh | None = None  # that the teacher may be sharded over
        let = let_in_use(config)
        pairs, width = len(plan.pairs), FLAVORS[config.model.flavor].dim
        fit = build_fit(let, width)
        self.states = TeacherStates(let.teacher_norm, let.width_map, pairs, width, fit)
        self.maps = LearnedMaps(let.width_map, pairs, width, config, dims, optimizers)
        self.targets: TargetCount | None = None
        if plan.pairs and config.teacher.tokenizer == "align":
            self.targets = TargetCount(dims, device)
        for part in model_parts:
            part.alignment, part.distillation = self.alignment, self.distillation
        self._owns_block = self._writes_cache = owns_aligned_block(plan, model_parts)
        self._pipeline: PipelineRows | None = None
        if plan.pairs and dims.pp_enabled:
            mesh = dims.get_mesh("pp")
            owners = ranks_where(self._owns_block, mesh)
            self._writes_cache = mesh.get_local_rank() == owners[0]
            if config.teacher.pipeline == "all":
                self._pipeline = PipelineRows(mesh, owners)

    def load(self, start: int = 0) -> None:
        """Loads the teacher on the ranks that read for it, when ``start`` steps are done."""
        self._load_here(start)
        facts = self.facts()
        assert facts is not None
        self.states.start(facts["width"], self.device)
        self.maps.start(facts["width"], self.device)
        if self.alignment is not None:
            self.alignment.fitted = self.states.fitted
            self.alignment.learned = self.maps.maps

    def _load_here(self, start: int) -> None:
        config = self.config.teacher
        folder = prepare_teacher(*config.source)
        cached = self.cache is not None and self.cache.open(self.plan, folder, start)
        if self.targets is not None:
            self.targets.teacher_is(folder, config.trust_remote_code)
        if not self._owns_block and self._pipeline is None:
            return
        if self.cache is not None and cached:
            self.teacher = self.cache.reading(self.plan, folder, self.device)
        else:
            self._mesh = shard_mesh(config.placement, self.dims, processes_per_node())
            teacher = load_model(self.config, self.plan, self.dims, self.device, folder, self._mesh)
            self.teacher = teacher
            if self.cache is not None:
                self.teacher = self.cache.writing(teacher, self._writes_cache)
        if self.distillation is not None:
            assert isinstance(self.teacher, Teacher)
            self.distillation.head = load_head(self.config, self.teacher, self.device, folder)
        if self.maps.name in LEARNED:
            facts = self.teacher.facts
            a_map = map_flops(self.maps.width, facts["width"])
            facts["flops_per_token"] += self.maps.pairs * a_map

    def release(self) -> tuple[float, float]:
        """Frees weights, buffers and all-gather storage; the run is plain from here on.

        Returns:
            This process's memory with the teacher and without, in GiB.
        """
        free_cached_memory()  # so that the difference is the teacher alone
        before = memory_gib()
        self.teacher = None
        if self.cache is not None:
            self.cache.close()
        if self.distillation is not None:
            self.distillation.head = None
        self.states.stop()
        self.maps.stop()
        if self.alignment is not None:
            self.alignment.fitted = self.alignment.learned = ()
        free_cached_memory()
        # The guard has waited for the step, and with it for the teacher's last all-gather.
        leave(self._mesh, self.config.teacher.placement)
        self._mesh = None
        return before, memory_gib()

    def facts(self) -> dict[str, Any] | None:
        """Returns the teacher's facts, on ranks without one, too; every rank calls."""
        known = gathered(None if self.teacher is None else self.teacher.facts)
        return next((facts for facts in known if facts is not None), None)

    def begin_step(self, step: int) -> None:
        """Starts the sums of torchtitan's ``step`` (from 1)."""
        if self.distillation is not None:
            self.distillation.meter.reset()
        if self.alignment is None:
            return
        if self.targets is not None:
            self.targets.begin()
        self.alignment.meter.reset()
        self.maps.begin_step()
        freq = self.config.let.diagnostics_freq
        wanted = self.diagnostics is not None and self.plan.teacher_in(step)
        wanted = wanted and (step == 1 or step % freq == 0)
        self.alignment.diagnostics = self.diagnostics if wanted else None
        if self.alignment.diagnostics is not None:
            self.alignment.diagnostics.reset()

    def watched(self, batches: Iterator[Batch], step: int) -> Iterator[Batch]:
        """Returns the step's batches. As they are taken, their targets are counted, and a teacher
        that reads or writes cached states is told which sequences come."""
        if self.cache is not None:
            assert not isinstance(self.teacher, Teacher)
            batches = self.cache.announced(batches, self.teacher)
        if self.targets is None or not self.plan.teacher_in(step):
            return batches
        return self.targets.watched(batches)

    def end_step(self, left_out: bool) -> None:
        """Ends a step that had a teacher; every rank calls.

        Args:
            left_out: whether the step was not finite and nothing of it was applied.
        """
        self.states.end_step(left_out)
        if isinstance(self.teacher, WritingTeacher):
            self.teacher.end_step()

    def diagnosis(self) -> dict[str, Any] | None:
        """Returns what ``Diagnostics.result`` says of the step, if it was asked to look at it."""
        if self.alignment is None or self.alignment.diagnostics is None:
            return None
        return self.alignment.diagnostics.result()

    def whole_states(
        self, batch: dict[str, Any], labels: torch.Tensor
    ) -> tuple[torch.Tensor, ...] | None:
        """Reads a batch with the teacher.

        Args:
            batch: as the loader gives it: "input" [B, S], perhaps "positions" [B, S]. The teacher's
                own entries are removed.
            labels: [B, S].

        Returns:
            the mask [B, S], then per layer the states [b, S, d_T] of whole sequences, b of B by
            ``share_of_batch``; None on a rank that holds no aligned block.
        """
        own = taken_out(batch)
        if self.teacher is None:
            return None
        mask, mine = labels != IGNORE_INDEX, share_of_batch(len(labels), self.dims)
        if self._pipeline is not None:
            mine = self._pipeline.part_of(mine)
        states: Sequence[torch.Tensor]
        if self.targets is None:
            states = self.teacher(**{name: values[mine] for name, values in batch.items()})
        else:
            assert own is not None and isinstance(self.teacher, Teacher)
            alone = self.config.data.document_attention
            states = states_at(self.teacher, own.of_rows(mine), alone)
            mask &= own.targets >= 0
        if self._pipeline is not None:
            states = self._pipeline.handed_over(states)
        return (mask, *states) if self._owns_block else None

    def aligned_tokens(self, valid: float | torch.Tensor) -> float | torch.Tensor:
        """Returns the step's global number of aligned tokens; every rank calls.

        Args:
            valid: its global number of valid tokens, all of which have a target where the teacher
                shares the student's tokenizer. The result is a float or a tensor as this is.
        """
        if self.targets is None or not self.targets.counting:
            return valid
        tokens = float(max(1, self.targets.sums().with_target))
        return torch.full_like(valid, tokens) if isinstance(valid, torch.Tensor) else tokens

    def teacher_positions(self, tokens: int) -> int:
        """Returns how many positions the teacher has read on all ranks.

        Args:
            tokens: of the student's, in the steps so far.
        """
        return tokens if self.targets is None else self.targets.positions

    def student_kwargs(
        self,
        states: tuple[torch.Tensor, ...],
        labels: torch.Tensor,
        positions: torch.Tensor | None,
    ) -> dict[str, Any]:
        """Returns the student's keyword arguments, all but the coefficient.

        Args:
            states: from ``whole_states``.
            labels: of this rank's tokens, [B, S / cp].
            positions: of this rank's tokens, [B, S / cp], under context parallelism.
        """
        rows = len(labels)
        if self.distillation is not None:  # its head has all tokens, under tensor parallelism, too
            hidden = [all_rows(each, rows, self.dims, positions) for each in states[1:]]
            return {"teacher_hidden": hidden, "labels": labels}
        mask, *hidden = (rows_of_this_rank(each, rows, self.dims, positions) for each in states)
        return {"teacher_hidden": self.states(hidden, mask), "align_mask": mask}

    def reduced_alignment(self, tokens: float | torch.Tensor) -> tuple[float, float]:
        """Returns the step's alignment loss and mean cosine, or KL and agreement, per token.

        In every layout a token's state after a block lies on one rank, so all ranks' sums add up.

        Args:
            tokens: from ``aligned_tokens``.
        """
        source = self.alignment or self.distillation
        assert source is not None
        sums = source.meter.sums(self.device).clone()
        dist.all_reduce(sums)
        loss, cosine = (sums / tokens).tolist()
        return loss, cosine / len(self.plan.pairs)

    def state_dict(self) -> dict[str, Any]:
        """Returns a part of the train state: moments and maps of the states, and their number."""
        counted = {} if self.targets is None else self.targets.state_dict()
        return {**self.states.state_dict(), **self.maps.state_dict(), **counted}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.states.load_state_dict(state)
        self.maps.load_state_dict(state)
        if self.targets is not None:
            self.targets.load_state_dict(state)

"""LET's phase of a run: while lambda(s) > 0 there is a teacher beside the student."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

import torch
import torch.distributed as dist
from torchtitan.components.loss import IGNORE_INDEX
from torchtitan.components.optimizer import OptimizersContainer
from torchtitan.distributed import ParallelDims

from let_titan.alignment import all_rows, rows_of_this_rank
from let_titan.batch import Batch, taken_out
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
from let_titan.let.targets import TargetCount
from let_titan.let.teacher_slot import TeacherSlot
from let_titan.plan import LetPlan, let_in_use
from let_titan.student.flavors import FLAVORS
from let_titan.teacher import TeacherDescription, TeacherStates, prepare_teacher


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

    Attributes:
        description: the teacher's, while there is one, on ranks that do not read for it, too.
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
        self.slot = TeacherSlot(config, dims, device, owns_aligned_block(plan, model_parts), cache)
        self.description: TeacherDescription | None = None
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

    def load(self, start: int = 0) -> None:
        """Loads the teacher on the ranks that read for it, when ``start`` steps are done."""
        folder = prepare_teacher(*self.config.teacher.source)
        if self.targets is not None:
            self.targets.teacher_is(folder, self.config.teacher.trust_remote_code)
        description = self.slot.load(folder, self.plan, start)
        if self.distillation is not None:
            self.distillation.head = self.slot.head
        self.states.start(description.width, self.device)
        self.maps.start(description.width, self.device)
        if self.alignment is not None:
            self.alignment.fitted = self.states.fitted
            self.alignment.learned = self.maps.maps
        self.description = description.with_maps(self.maps.flops_per_token)

    def release(self) -> tuple[float, float]:
        """Frees weights, buffers and all-gather storage; the run is plain from here on.

        Returns:
            This process's memory with the teacher and without, in GiB.
        """
        free_cached_memory()  # so that the difference is the teacher alone
        before = memory_gib()
        if self.distillation is not None:
            self.distillation.head = None
        self.states.stop()
        self.maps.stop()
        if self.alignment is not None:
            self.alignment.fitted = self.alignment.learned = ()
        self.slot.release()
        self.description = None
        return before, memory_gib()

    def facts(self) -> dict[str, Any] | None:
        """Returns what summary.json says of the teacher, while there is one."""
        return None if self.description is None else asdict(self.description)

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
        batches = self.slot.watched(batches)
        if self.targets is None or not self.plan.teacher_in(step):
            return batches
        return self.targets.watched(batches)

    def end_step(self, left_out: bool) -> None:
        """Ends a step that had a teacher; every rank calls.

        Args:
            left_out: whether the step was not finite and nothing of it was applied.
        """
        self.states.end_step(left_out)
        self.slot.end_step()

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
        states = self.slot.read(batch, own, len(labels))
        if states is None:
            return None
        mask = labels != IGNORE_INDEX
        if own is not None:
            mask &= own.targets >= 0
        return (mask, *states)

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

    def figures(self, tokens: float | torch.Tensor) -> dict[str, float]:
        """Returns what a step with a teacher adds to its line in the log; every rank calls.

        In every layout a token's state after a block lies on one rank, so all ranks' sums add up.

        Args:
            tokens: from ``aligned_tokens``.
        """
        source = self.alignment or self.distillation
        assert source is not None
        names = ("kd_loss", "kd_agreement") if self.distillation else ("align_loss", "align_cosine")
        sums = source.meter.sums(self.device).clone()
        dist.all_reduce(sums)
        loss, agreement = (sums / tokens).tolist()
        means = (loss, agreement / len(self.plan.pairs))
        found = {f"let/{name}": mean for name, mean in zip(names, means, strict=True)}
        return found if self.targets is None else found | self.targets.figures()

    def state_dict(self) -> dict[str, Any]:
        """Returns a part of the train state: moments and maps of the states, and their number."""
        counted = {} if self.targets is None else self.targets.state_dict()
        return {**self.states.state_dict(), **self.maps.state_dict(), **counted}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.states.load_state_dict(state)
        self.maps.load_state_dict(state)
        if self.targets is not None:
            self.targets.load_state_dict(state)

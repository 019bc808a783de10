"""Where a rank has its teacher: loaded, asked for states, and let go."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch.distributed.device_mesh import DeviceMesh
from torch.profiler import record_function
from torchtitan.distributed import ParallelDims

from let_titan.alignment import share_of_batch
from let_titan.batch import Batch, TeacherBatch
from let_titan.collectives import gathered
from let_titan.config import LetJobConfig, distills
from let_titan.device import free_cached_memory
from let_titan.distill import times_read
from let_titan.let.cache import RunCache
from let_titan.let.pipeline_rows import PipelineRows, ranks_that_own
from let_titan.let.targets import states_at
from let_titan.let.teacher import load_head, load_model
from let_titan.plan import LetPlan
from let_titan.state_cache import CachedTeacher, WritingTeacher
from let_titan.teacher import Teacher, TeacherDescription
from let_titan.teacher.placement import leave, processes_per_node, shard_mesh

RANGE = "let_titan::teacher"
"""What a profile shows of the teacher's forward; of the alignment's backward, _InjectBackward."""


class TeacherSlot:
    """A run's teacher on this rank, if the rank reads for one.

    Without a pipeline every rank does. With one, either the ranks that hold an aligned block, or
    all of them (``teacher.pipeline``), each a part of the rows.

    Args:
        config: the run's.
        dims: its layout.
        device: where the teacher will be.
        owns_block: whether this rank holds an aligned block.
        cache: of the teacher's states, if the run has one.

    Attributes:
        teacher: while there is one here: a model, a model whose states are written, or a reader of
            states.
        head: the LM head [V, d_T] that [distill] needs, while there is a teacher here.
    """

    def __init__(
        self,
        config: LetJobConfig,
        dims: ParallelDims,
        device: torch.device,
        owns_block: bool,
        cache: RunCache | None,
    ) -> None:
        self.config, self.dims, self.device = config, dims, device
        self.teacher: Teacher | CachedTeacher | WritingTeacher | None = None
        self.head: torch.Tensor | None = None
        self.cache = cache
        self._owns_block = owns_block
        self._pipeline: PipelineRows | None = None  # where all of its ranks read
        self._mesh: DeviceMesh | None = None  # that the teacher may be sharded over

    def load(self, folder: Path, plan: LetPlan, start: int) -> TeacherDescription:
        """Loads the teacher on the ranks that read for it; every rank calls.

        Args:
            folder: the teacher's.
            plan: what is aligned with what.
            start: steps done.

        Returns:
            its description, on ranks without one, too.
        """
        cached = self.cache is not None and self.cache.open(plan, folder, start)
        writes = self._owns_block
        if self.dims.pp_enabled:
            mesh = self.dims.get_mesh("pp")
            owners = ranks_that_own(self._owns_block, mesh)
            writes = mesh.get_local_rank() == owners[0]
            if self.config.teacher.pipeline == "all":
                self._pipeline = PipelineRows(mesh, owners)
        here: TeacherDescription | None = None
        if self._owns_block or self._pipeline is not None:
            if self.cache is not None and cached:
                self.teacher, here = self.cache.reading(plan, folder, self.device)
            else:
                here = self._load_model(folder, plan, writes)
        return next(found for found in gathered(here) if found is not None)

    def _load_model(self, folder: Path, plan: LetPlan, writes: bool) -> TeacherDescription:
        """Loads the model, and what goes with it.

        Args:
            folder: the teacher's.
            plan: what is aligned with what.
            writes: whether, of its pipeline's ranks, this one writes the run's cache.
        """
        self._mesh = shard_mesh(self.config.teacher.placement, self.dims, processes_per_node())
        teacher = load_model(self.config, plan, self.dims, self.device, folder, self._mesh)
        self.teacher, description = teacher, teacher.description
        if distills(self.config):
            self.head = load_head(self.config, teacher, self.device, folder)
            reads = times_read(self.config.distill.select_of)
            description = description.with_head(len(self.head), self.head.dtype, reads)
        if self.cache is not None:
            self.teacher = self.cache.writing(teacher, writes)
        return description

    def release(self) -> None:
        """Frees weights, buffers and all-gather storage; every rank calls."""
        self.teacher = self.head = None
        self.close()
        free_cached_memory()
        # The guard has waited for the step, and with it for the teacher's last all-gather.
        leave(self._mesh, self.config.teacher.placement)
        self._mesh = None

    def close(self) -> None:
        """Lets other runs have the cache of states."""
        if self.cache is not None:
            self.cache.close()

    def watched(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        """Yields a step's batches; a cache is told which sequences come."""
        return batches if self.cache is None else self.cache.announced(batches)

    def end_step(self) -> None:
        """Writes the step's states, if the run has a cache that lacks them."""
        if self.cache is not None:
            self.cache.end_step()

    def read(
        self, batch: dict[str, Any], own: TeacherBatch | None, rows: int
    ) -> Sequence[torch.Tensor] | None:
        """Reads this rank's share of a batch; ranks that read a part of it hand it over.

        Args:
            batch: "input" [B, S], perhaps "positions" [B, S].
            own: the batch in the teacher's own tokens, if its tokenizer is not the student's.
            rows: B.

        Returns:
            per layer the states [b, S, d_T] of whole sequences, b of B by ``share_of_batch``; None
            on a rank that holds no aligned block.
        """
        if self.teacher is None:
            return None
        mine = share_of_batch(rows, self.dims)
        if self._pipeline is not None:
            mine = self._pipeline.part_of(mine)
        states: Sequence[torch.Tensor]
        with record_function(RANGE):
            if own is None:
                states = self.teacher(**{name: values[mine] for name, values in batch.items()})
            else:
                assert isinstance(self.teacher, Teacher)  # a cache is refused beside a tokenizer
                alone = self.config.data.document_attention
                states = states_at(self.teacher, own.of_rows(mine), alone)
        if self._pipeline is not None:
            states = self._pipeline.handed_over(states)
        return states if self._owns_block else None

"""The run's cache of teacher's states, if ``teacher.cache`` names one: opened, read, or written."""

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch
import torch.distributed as dist
from torchtitan.components.dataloader import BaseDataLoader
from torchtitan.config import TORCH_DTYPE_MAP
from torchtitan.distributed import ParallelDims
from torchtitan.tools.logging import logger

from let_titan.alignment import share_of_batch, sharing_axes
from let_titan.batch import Batch
from let_titan.collectives import do_where, gathered, patient_group
from let_titan.config import LetJobConfig
from let_titan.data.loader import PileLoader
from let_titan.errors import writing
from let_titan.plan import LetPlan
from let_titan.state_cache import (
    CachedTeacher,
    StateFiles,
    WritingTeacher,
    begin_cache,
    bytes_per_token,
    check_cache,
    check_room,
    key_of,
    lock,
)
from let_titan.teacher import Teacher, TeacherDescription
from let_titan.teacher.description import describe
from let_titan.teacher.hub import commit_of
from let_titan.teacher.load import build_part
from let_titan.teacher.sources import read_config


class RunCache:
    """Opens the cache's files for a run, and makes the teacher that reads or writes them.

    Args:
        config: the run's.
        dims: its layout.
        loader: of its training data, whose sequences are numbered.
        per_step: sequences of a step.

    Attributes:
        files: the cache's, once it is open.
    """

    files: StateFiles

    def __init__(
        self, config: LetJobConfig, dims: ParallelDims, loader: BaseDataLoader, per_step: int
    ) -> None:
        assert isinstance(loader, PileLoader)
        self.config, self.dims, self.loader, self.per_step = config, dims, loader, per_step
        self.path = Path(config.teacher.cache).expanduser()
        self._teacher: CachedTeacher | WritingTeacher | None = None
        self._lock: int | None = None

    def open(self, plan: LetPlan, teacher: Path, start: int) -> bool:
        """Opens the cache for the steps from ``start`` to s_stop; every rank calls.

        Args:
            plan: the run's.
            teacher: its folder.
            start: steps done.

        Returns:
            whether all of these steps' states are there, so that no teacher is needed.

        Raises:
            ConfigError: it is another run's, or there is no room for it; on all ranks.
            RunError: the folder cannot be made; on all ranks.
        """
        first = self.loader.sequences
        wanted = range(first, first + (plan.s_stop - start) * self.per_step)
        with patient_group() as group:  # rank 0 reads the teacher's weights for their sum
            do_where(dist.get_rank() == 0, lambda: self._open(plan, teacher, wanted), group)
        do_where(True, self._make_folder)
        self.files = StateFiles(self.path, dist.get_rank())
        return not any(gathered(self.files.missing(wanted)))

    def _make_folder(self) -> None:
        """Makes it on every rank, since a node may not see rank 0's for some time."""
        with writing(self.path):
            self.path.mkdir(parents=True, exist_ok=True)

    def _open(self, plan: LetPlan, teacher: Path, wanted: range) -> None:
        """Checks key and room, says what is needed, and makes the folder."""
        config = self.config
        key = key_of(config, plan, teacher, self.loader.identity, self.loader.deal.lanes)
        check_cache(self.path, key)
        width = read_config(str(teacher), config.teacher.trust_remote_code).hidden_size
        each = bytes_per_token(len(key["layers"]), width)
        missing = StateFiles(self.path, 0).missing(wanted)
        n_bytes = missing * config.training.seq_len * each
        logger.info(
            f"Teacher's states: {each:,} bytes a token, "
            f"{len(wanted) * config.training.seq_len * each / 2**30:,.2f} GiB until s_stop, "
            f"{n_bytes / 2**30:,.2f} GiB of them are not in {str(self.path)!r} yet."
        )
        check_room(self.path, n_bytes)
        begin_cache(self.path, key)
        if missing:
            self._lock = lock(self.path)

    def close(self) -> None:
        """Lets the teacher go, and other runs write: this one has nothing left to do here."""
        self._teacher = None
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def reading(
        self, plan: LetPlan, teacher: Path, device: torch.device
    ) -> tuple[CachedTeacher, TeacherDescription]:
        """Returns a teacher without a model, whose states are read; it costs nothing."""
        config = self.config.teacher
        shape = read_config(str(teacher), config.trust_remote_code)
        dtype = TORCH_DTYPE_MAP[config.dtype]
        layers = [pair.layer for pair in plan.pairs]
        model, resolved = build_part(shape, layers, dtype, config.trust_remote_code)
        built = describe(model, teacher.name, resolved, dtype, self.config.training.seq_len)
        self._teacher = found = CachedTeacher(self.files, resolved, device, dtype)
        return found, replace(
            built, placement="cache", commit=commit_of(teacher), bytes=0, flops_per_token=0
        )

    def writing(self, teacher: Teacher, first: bool) -> WritingTeacher:
        """Returns ``teacher``, made to write its states on one of the ranks that hold the same.

        Args:
            teacher: the run's.
            first: whether this rank is the first of the pipeline with a teacher.
        """
        divided = sharing_axes(self.config.training.local_batch_size, self.dims)
        same = [self.dims.get_optional_mesh(axis) for axis in {"tp", "cp"} - {*divided}]
        writes = first and all(mesh is None or mesh.get_local_rank() == 0 for mesh in same)
        self._teacher = found = WritingTeacher(teacher, self.files, writes)
        return found

    def announced(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        """Yields ``batches`` without their sequences' numbers, after telling the teacher those."""
        for inputs, labels in batches:
            numbers = inputs.pop("sequences").tolist()
            if self._teacher is not None:
                self._teacher.expect(numbers[share_of_batch(len(numbers), self.dims)])
            yield inputs, labels

    def end_step(self) -> None:
        """Lets the teacher write the step's states, if it does."""
        if self._teacher is not None:
            self._teacher.end_step()

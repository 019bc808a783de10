"""Targets of a teacher with a tokenizer of its own: its states there, and their number."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torchtitan.components.loss import IGNORE_INDEX
from torchtitan.distributed import ParallelDims

from let_titan.batch import Batch, TeacherBatch
from let_titan.teacher import Teacher
from let_titan.teacher.attention import takes_pieces
from let_titan.teacher.rows import positions_read, read_rows
from let_titan.teacher.sources import read_config


def states_at(teacher: Teacher, batch: TeacherBatch, documents: bool) -> list[torch.Tensor]:
    """Returns a teacher's states at the targets; a token without one gets an arbitrary state.

    Args:
        teacher: the teacher.
        batch: of its own tokens.
        documents: whether it reads each document alone.

    Returns:
        One [B, S, d_T] per layer.
    """
    indices = batch.targets.clamp_min(0).long()
    states = read_rows(teacher, batch.input, batch.pieces, documents)
    return [each[indices] for each in states]


class Counts(NamedTuple):
    """Of batches: valid tokens with a target, valid tokens, the teacher's tokens, with padding."""

    with_target: int
    valid: int
    read: int
    positions: int

    @property
    def target_share(self) -> float:
        """Of the valid tokens, those that have a target."""
        return self.with_target / max(1, self.valid)

    @property
    def padding_share(self) -> float:
        """Of what the teacher reads, what is padding."""
        return 1 - self.read / max(1, self.positions)


def count(inputs: dict[str, Any], labels: torch.Tensor, packed: bool) -> torch.Tensor:
    """Returns the ``Counts`` of a batch as the loader gives it, [4] int64.

    Args:
        inputs, labels: on the CPU.
        packed: whether the teacher reads rows end to end.
    """
    targets, rows = inputs["teacher_targets"], [sum(row) for row in inputs["teacher_pieces"]]
    valid = labels != IGNORE_INDEX
    sums = ((targets >= 0) & valid).sum(), valid.sum()
    return torch.stack((*sums, *torch.tensor([sum(rows), positions_read(rows, packed)])))


class TargetCount:
    """Counts a step's tokens that have a target, by which the alignment's sum is divided.

    The loader's batches are counted on the CPU as a step takes them; the counts are added up once a
    step, over the ranks that hold other batches.

    Args:
        dims: the layout.
        device: where the ranks' collectives run.

    Attributes:
        packed: whether the teacher reads rows end to end.
        positions: what the teacher has read in the run on all ranks, padding included.
    """

    def __init__(self, dims: ParallelDims, device: torch.device) -> None:
        self.dims, self.device = dims, device
        self.packed = True
        self.positions = 0

    def teacher_is(self, folder: Path, trust_remote_code: bool) -> None:
        """Finds out how the teacher in ``folder`` reads; ranks without one need to know, too."""
        self.packed = takes_pieces(read_config(str(folder), trust_remote_code))

    def begin(self) -> None:
        """Begins a step."""
        self._mine = torch.zeros(4, dtype=torch.int64)
        self._sums: Counts | None = None

    def watched(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        """Yields ``batches``, counting those that the teacher reads."""
        for inputs, labels in batches:
            self._mine += count(inputs, labels, self.packed)
            yield inputs, labels

    @property
    def counting(self) -> bool:
        """Whether the step's batches are watched, as they are while there is a teacher."""
        return bool(self._mine[-1])

    def sums(self) -> Counts:
        """Returns the step's counts over all ranks; every rank calls, after its batches."""
        if self._sums is None:
            sums = self._mine
            if self.dims.dp_enabled:
                sums = sums.to(self.device, copy=True)
                dist.all_reduce(sums, group=self.dims.get_mesh("batch").get_group())
            self._sums = Counts(*sums.tolist())
            self.positions += self._sums.positions
        return self._sums

    def figures(self) -> dict[str, float]:
        """Returns the step's shares, for its line in the log."""
        sums = self.sums()
        return {
            "let/align_target_share": sums.target_share,
            "let/teacher_padding_share": sums.padding_share,
        }

    def state_dict(self) -> dict[str, Any]:
        """Returns a part of the train state."""
        return {"teacher_positions": self.positions}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.positions = state.get("teacher_positions", 0)

"""A batch as loaders give it, and what of it a teacher with a tokenizer of its own reads."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch

Batch = tuple[dict[str, Any], torch.Tensor]
"""Inputs, all of them tensors but how the teacher's rows are cut, and labels."""

RowPieces = Sequence[Sequence[int]]
"""For each row the lengths of what is read by itself: its documents, or the row; [] if empty."""


class TeacherBatch(NamedTuple):
    """What the teacher reads, and where in it the student's tokens have their targets.

    Attributes:
        input: [N] ids, row after row.
        targets: [B, S], indices along N; below 0 there is none.
        pieces: of the rows; on the host.
    """

    input: torch.Tensor
    targets: torch.Tensor
    pieces: RowPieces

    def of_rows(self, mine: slice) -> "TeacherBatch":
        """Returns what there is for some of the rows."""
        lengths = [sum(row) for row in self.pieces]
        begin = sum(lengths[: mine.start or 0])
        end = begin + sum(lengths[mine])
        return TeacherBatch(self.input[begin:end], self.targets[mine] - begin, self.pieces[mine])


def taken_out(inputs: dict[str, Any]) -> TeacherBatch | None:
    """Removes the teacher's own entries from a batch, since the student's forward takes none."""
    found = [inputs.pop(f"teacher_{name}", None) for name in TeacherBatch._fields]
    return None if found[0] is None else TeacherBatch(*found)

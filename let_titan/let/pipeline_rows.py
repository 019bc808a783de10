"""Divides the teacher's rows among a pipeline's ranks, which hand on the states they compute.

A pipeline's ranks get the same batch. While one of them reads all rows with the teacher, the others
would wait for its first microbatch.
"""

from collections.abc import Sequence

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import DeviceMesh

from let_titan.collectives import gathered


def ranks_that_own(owner: bool, mesh: DeviceMesh) -> list[int]:
    """Returns the ranks of ``mesh`` on which ``owner`` holds; each of them calls."""
    return [rank for rank, owns in enumerate(gathered(owner, mesh.get_group())) if owns]


class PipelineRows:
    """Says which rows a rank reads, and brings their states to the ranks that align with them.

    Args:
        mesh: of the pipeline.
        owners: its ranks that hold an aligned block.
    """

    def __init__(self, mesh: DeviceMesh, owners: Sequence[int]) -> None:
        self.group, self.size, self.rank = mesh.get_group(), mesh.size(), mesh.get_local_rank()
        self.owners = owners

    def part_of(self, rows: slice) -> slice:
        """Returns this rank's part of ``rows``, which the pipeline's ranks divide."""
        part = (rows.stop - rows.start) // self.size
        begin = rows.start + self.rank * part
        return slice(begin, begin + part)

    def handed_over(self, states: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Hands this rank's states to the owners; every rank calls.

        Args:
            states: of its part, [b, S, d_T] for each layer.

        Returns:
            Those of all parts, [size b, S, d_T] for each layer; none on a rank that is no owner.
        """
        found: list[torch.Tensor] = []
        for owner in self.owners:
            for each in states:
                parts = None
                if self.rank == owner:
                    whole = each.new_empty(self.size * len(each), *each.shape[1:])
                    parts = list(whole.chunk(self.size))
                    found.append(whole)
                dist.gather(each.contiguous(), parts, group=self.group, group_dst=owner)
        return found

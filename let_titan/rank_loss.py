"""The largest mean loss of a data-parallel rank, under context parallelism.

A context-parallel rank's loss is that of a part of its sequences, and torchtitan 0.2.2 divides it
by the valid tokens of the whole ones: its global_max_loss is about cp times too small (its pull
request 3111, open).
"""

import torch
import torch.distributed as dist
from torchtitan.components.loss import IGNORE_INDEX
from torchtitan.distributed import ParallelDims
from torchtitan.distributed.utils import dist_max

from let_titan.columns import local


class RankLoss:
    """Sums of a step's losses and valid tokens on this rank; nothing waits for the device."""

    def __init__(self, dims: ParallelDims) -> None:
        self.dims = dims

    def begin(self) -> None:
        self._losses: list[torch.Tensor] = []
        self._tokens: list[torch.Tensor] = []

    def add(self, loss: torch.Tensor, labels: torch.Tensor) -> None:
        """Takes a microbatch.

        Args:
            loss: NLL summed over this rank's positions, in nats.
            labels: [B, S], of whole sequences.
        """
        self._losses.append(local(loss.detach()))
        self._tokens.append((labels != IGNORE_INDEX).sum())

    def largest(self) -> float:
        """Returns the largest mean NLL a token over data-parallel ranks; every rank calls.

        The parts of a sequence are added up first, as one process would have them.
        """
        loss = torch.stack(self._losses).sum()
        tokens = torch.stack(self._tokens).sum().clamp_min(1)
        dist.all_reduce(loss, group=self.dims.get_mesh("cp").get_group())
        return dist_max(loss / tokens, self.dims.get_optional_mesh("batch"))

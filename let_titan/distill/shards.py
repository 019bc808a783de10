"""Softmax, sum and argmax over a vocabulary that tensor parallelism has cut."""

from dataclasses import dataclass

import torch
import torch.distributed as dist


@dataclass(frozen=True)
class Shard:
    """This rank's columns of logits, from id ``offset`` on; perhaps none.

    Attributes:
        group: the ranks that hold the others; None: there are none.
        offset: the first id here.
    """

    group: dist.ProcessGroup | None = None
    offset: int = 0

    def reduced(self, tensor: torch.Tensor, op: dist.ReduceOp.RedOpType) -> torch.Tensor:
        """Reduces over the ranks, in place."""
        if self.group is not None:
            dist.all_reduce(tensor, op, self.group)
        return tensor

    def log_softmax(self, logits: torch.Tensor) -> torch.Tensor:
        """Returns this rank's columns of the log-softmax over all, [n, V / ranks]."""
        if self.group is None:
            return logits.log_softmax(-1)
        top = self.reduced(at_least_one_column(logits).amax(-1, keepdim=True), dist.ReduceOp.MAX)
        total = self.sum((logits - top).exp()).unsqueeze(-1)
        return logits - top - total.log()

    def sum(self, columns: torch.Tensor) -> torch.Tensor:
        """Returns the sum over all columns, [n]."""
        return self.reduced(columns.sum(-1), dist.ReduceOp.SUM)

    def own(self, ids: torch.Tensor, columns: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Finds ids among this rank's columns.

        Args:
            ids: [n].
            columns: [n, V / ranks]; only its shape matters.

        Returns:
            (each id's column, 0 where it is not here, [n, 1]; whether it is, [n]).
        """
        at = ids - self.offset
        here = (at >= 0) & (at < columns.shape[-1])
        return torch.where(here, at, 0).unsqueeze(-1), here

    def argmax(self, logits: torch.Tensor) -> torch.Tensor:
        """Returns the id of each row's largest logit, the first of equal ones, [n]."""
        best, own = at_least_one_column(logits).max(-1)
        if self.group is None:
            return own
        top = self.reduced(best.clone(), dist.ReduceOp.MAX)
        none = torch.iinfo(own.dtype).max
        return self.reduced(torch.where(best == top, own + self.offset, none), dist.ReduceOp.MIN)


WHOLE = Shard()
"""The whole vocabulary on one rank."""


def at_least_one_column(columns: torch.Tensor) -> torch.Tensor:
    """Returns ``columns`` [n, V / ranks], or [n, 1] of -inf where a rank has only padding."""
    return columns if columns.shape[-1] else columns.new_full((len(columns), 1), -torch.inf)

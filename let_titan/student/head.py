"""The student's LM head, which can return a loss in place of logits."""

from collections.abc import Callable

import torch
from torch import nn

# (hidden [B, S, d_M], weight [V, d_M]) -> a loss, 0-d
LossOfHead = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


class LossHead(nn.Linear):
    """A linear layer that can return a loss of its input and weight in place of logits.

    The loss is computed within the module's call, where FSDP2 has gathered the weight, tensor
    parallelism the states, and gradients are reduced once, as for logits.
    """

    @classmethod
    def of(cls, linear: nn.Linear) -> "LossHead":
        """Returns such a head with the weight of ``linear``; draws no random number."""
        head = cls(linear.in_features, linear.out_features, bias=False, device="meta")
        head.weight = linear.weight
        return head

    def forward(self, hidden: torch.Tensor, loss: LossOfHead | None = None) -> torch.Tensor:
        """Returns logits [B, S, V], or what ``loss`` makes of the states and the weight."""
        return super().forward(hidden) if loss is None else loss(hidden, self.weight)

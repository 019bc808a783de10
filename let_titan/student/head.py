"""The student's LM head, which can give a loss in place of its logits."""

from collections.abc import Callable

import torch
from torch import nn

# (hidden [B, S, d_M], weight [V, d_M]) -> a loss, 0-d
LossOfHead = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


class LossHead(nn.Linear):
    """A linear layer that, asked for a loss, hands that its input and weight.

    Within the module's call, so that FSDP2 gathers the weight and reduces its gradient once, and
    tensor parallelism gathers the states, as they do for logits.
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

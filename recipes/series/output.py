"""What every classifier of the recipe gives."""

from typing import NamedTuple

import torch


class Output(NamedTuple):
    """Attributes:
    logits: [B, n_classes].
    states: each block's output, [B, S, d]; S tokens are time steps, or patches of them.
    """

    logits: torch.Tensor
    states: list[torch.Tensor]

"""What the alignment does to the student, measured in single steps: each block's cosine to the
teacher, and how the alignment's gradient relates to the NLL's at the aligned blocks."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist

from let_titan.alignment.cosine import cosine_alignment


class Diagnostics:
    """Sums over one step's valid tokens, which lie on one rank each in every layout.

    With g the gradient of the NLL at an aligned block's output, divided by the global number of
    tokens, and a that of lambda(s) * weight * the alignment loss, both over all tokens of the step:

        grad_cosine = <g, a> / |g||a|      below 0 the alignment works against the NLL
        grad_ratio  = |a| / |g|            how much of the step is the alignment's

    With several pairs, g holds the alignment of later blocks, too: it is what comes from above.

    Args:
        blocks: the aligned block of each pair, from 1.
        n_blocks: of the whole student.
        device: where the states are.
    """

    def __init__(self, blocks: Sequence[int], n_blocks: int, device: torch.device) -> None:
        self.blocks, self.n_blocks = tuple(blocks), n_blocks
        self._cosines = torch.zeros(len(blocks), n_blocks, device=device)
        self._tokens = torch.zeros(n_blocks, device=device)
        self._products = torch.zeros(len(blocks), 3, device=device)  # <g, a>, <g, g>, <a, a>

    def reset(self) -> None:
        """Begins a step."""
        self._cosines.zero_()
        self._tokens.zero_()
        self._products.zero_()

    @torch.no_grad()
    def see_block(
        self,
        block: int,
        of_pairs: Sequence[tuple[torch.Tensor, torch.Tensor]],
        mask: torch.Tensor,
    ) -> None:
        """Takes each pair's student's and teacher's [B, S, d], of each block once a microbatch."""
        self._tokens[block - 1] += mask.sum()
        for pair, (hidden, teacher) in enumerate(of_pairs):
            self._cosines[pair, block - 1] += cosine_alignment(hidden, teacher, mask)[1]

    def see_gradients(self, pair: int, grad_output: torch.Tensor, own: torch.Tensor) -> None:
        """Takes what comes from above at the pair's block and the alignment's, [B, S, d_M] each."""
        above, own = grad_output.float(), own.float()
        products = ((above * own).sum(), above.square().sum(), own.square().sum())
        self._products[pair] += torch.stack(products)

    def result(self) -> dict[str, Any]:
        """Returns the step's figures; every rank calls.

        Returns:
            {"block_cosine": a list over blocks a pair, "grad_cosine" and "grad_ratio": one number a
            pair}; NaN where a gradient is zero, and for a block on a pipeline's stage without a
            teacher.
        """
        parts = (self._cosines, self._tokens, self._products)
        sums = torch.cat([part.flatten() for part in parts])
        dist.all_reduce(sums)
        cosines, tokens, products = sums.split([part.numel() for part in parts])
        dot, above, own = products.view_as(self._products).unbind(1)
        return {
            "block_cosine": (cosines.view_as(self._cosines) / tokens).tolist(),
            "grad_cosine": (dot / (above * own).sqrt()).tolist(),
            "grad_ratio": (own / above).sqrt().tolist(),
        }

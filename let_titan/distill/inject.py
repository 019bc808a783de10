"""Where distillation enters: at the logits, as the alignment does at a block's output."""

import torch

from let_titan.alignment import Alignment, AlignmentMeter
from let_titan.distill.kl import mixed_gradient


class Distillation(Alignment):
    """An alignment whose "block" is the one after the last: the student's logits.

    The loss that torchtitan computes, and logs, stays the NLL alone; the mixture is made of its
    gradient on the way back.

    Args:
        block: n_layers + 1.
        weight: of the KL, in 0..1; the NLL has the rest.
        temperature: T of both distributions.
        reverse: KL(student || teacher) in place of KL(teacher || student).
    """

    def __init__(self, block: int, weight: float, temperature: float, reverse: bool) -> None:
        self.blocks = ((block, 1.0),)
        self.meter = AlignmentMeter()
        self.head: torch.Tensor | None = None  # [V, d_T], while there is a teacher
        self.weight, self.temperature, self.reverse = weight, temperature, reverse
        self.add = self._mix

    def _mix(
        self, grad_output: torch.Tensor, scale: torch.Tensor, *states: torch.Tensor
    ) -> tuple[torch.Tensor, tuple[torch.Tensor, torch.Tensor]]:
        assert self.head is not None
        return mixed_gradient(
            grad_output,
            scale,
            *states,
            head=self.head,
            nll_share=1 - self.weight,
            temperature=self.temperature,
            reverse=self.reverse,
        )

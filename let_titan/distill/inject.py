"""Where distillation enters: at the logits, as the alignment does at a block's output."""

import torch
from torch.distributed.tensor import DTensor

from let_titan.alignment import Alignment, AlignmentMeter
from let_titan.columns import local_columns
from let_titan.distill.kl import WHOLE, mixed_gradient
from let_titan.distill.shards import Shard


class Distillation(Alignment):
    """An alignment whose "block" is the one after the last: the student's logits.

    The loss that torchtitan computes, and logs, stays the NLL alone; the mixture is made of its
    gradient on the way back.

    Args:
        block: n_layers + 1.
        weight: of the KL, in 0..1; the NLL has the rest.
        temperature: T of both distributions.
        reverse: KL(student || teacher) in place of KL(teacher || student).
        copies: ranks that hold a token's logits, whole or in part (tensor parallelism).
    """

    def __init__(
        self, block: int, weight: float, temperature: float, reverse: bool, copies: int = 1
    ) -> None:
        self.blocks = ((block, 1.0),)
        self.meter = AlignmentMeter()
        self.head: torch.Tensor | None = None  # [V, d_T], while there is a teacher
        self.weight, self.temperature, self.reverse = weight, temperature, reverse
        self.copies = copies
        self.add = self._mix

    def _mix(
        self,
        grad_output: torch.Tensor,
        scale: torch.Tensor,
        logits: torch.Tensor,
        *others: torch.Tensor,
    ) -> tuple[torch.Tensor, tuple[torch.Tensor, torch.Tensor]]:
        if not isinstance(logits, DTensor):
            return self._of_columns(grad_output, scale, logits, *others)
        assert isinstance(grad_output, DTensor)
        mesh, placements = logits.device_mesh, logits.placements
        local, first = local_columns(logits)
        above = grad_output.redistribute(mesh, placements).to_local()
        shard = Shard(mesh.get_group(), first)
        found, sums = self._of_columns(above, scale, local, *others, shard=shard)
        shape, stride = logits.shape, logits.stride()
        return DTensor.from_local(found, mesh, placements, shape=shape, stride=stride), sums

    def _of_columns(
        self,
        grad_output: torch.Tensor,
        scale: torch.Tensor,
        logits: torch.Tensor,
        *others: torch.Tensor,
        shard: Shard = WHOLE,
    ) -> tuple[torch.Tensor, tuple[torch.Tensor, torch.Tensor]]:
        """Mixes what this rank has of the logits: all, or some columns."""
        assert self.head is not None
        gradient, (value, agreement) = mixed_gradient(
            grad_output,
            scale,
            logits,
            *others,
            head=self.head[shard.offset : shard.offset + logits.shape[-1]],
            nll_share=1 - self.weight,
            temperature=self.temperature,
            reverse=self.reverse,
            shard=shard,
        )
        # All ranks' sums are added up, and tensor parallelism's have the same tokens
        return gradient, (value / self.copies, agreement / self.copies)

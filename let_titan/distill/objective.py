"""The loss that [distill] trains on: an NLL mixed with a KL to the teacher's distribution."""

import torch
from torch.distributed.tensor import DTensor, Partial
from torchtitan.components.loss import IGNORE_INDEX

from let_titan.alignment import StepMeter
from let_titan.columns import first_of_shard
from let_titan.distill.chunks import loss_of_linear
from let_titan.distill.rows import cross_entropy, divergence
from let_titan.distill.shards import WHOLE, Shard


class Distillation:
    """What the student's LM head needs to be distilled.

    Args:
        weight_of_kl: in 0..1; the NLL has the rest.
        temperature: T of both distributions.
        reverse: KL(student || teacher) in place of KL(teacher || student).
        copies: ranks that hold a token's logits, whole or in part (tensor parallelism).
        chunk: tokens whose logits are held at once; None: as ``loss_of_linear`` has it.

    Attributes:
        head: the teacher's LM head, a row for each id of the tokenizer, [V, d_T]; while there is a
            teacher.
        meter: sums of the KL and of the tokens at which both have the same first choice.
    """

    def __init__(
        self,
        weight_of_kl: float,
        temperature: float,
        reverse: bool,
        copies: int = 1,
        chunk: int | None = None,
    ) -> None:
        self.weight_of_kl, self.temperature = weight_of_kl, temperature
        self.reverse, self.copies, self.chunk = reverse, copies, chunk
        self.head: torch.Tensor | None = None
        self.meter = StepMeter()

    def loss(
        self,
        hidden: torch.Tensor,
        weight: torch.Tensor,
        *,
        teacher: torch.Tensor,
        labels: torch.Tensor,
    ) -> torch.Tensor:
        """Returns the NLL's sum over valid tokens, but backward gives the mixture's gradient.

        So the logged loss is the NLL alone, and dividing it by a number of tokens divides the
        mixture, too. No tensor of all tokens' logits is made.

        Args:
            hidden: the student's states after its final norm, [B, S, d_M].
            weight: of its LM head, [V, d_M]; rows behind the tokenizer's ids are its padding.
                Both are DTensors under tensor parallelism: hidden whole, weight a rank's rows.
            teacher: the teacher's states after its final norm, [B, S, d_T].
            labels: [B, S], IGNORE_INDEX where there is none.
        """
        shard = WHOLE
        if isinstance(weight, DTensor):
            assert isinstance(hidden, DTensor)
            shard = Shard(weight.device_mesh.get_group(), first_of_shard(weight, 0))
            # Each rank's columns give a part of the states' gradient
            hidden = hidden.to_local(grad_placements=[Partial()])
            weight = weight.to_local()
        assert self.head is not None
        head = self.head[shard.offset : shard.offset + len(weight)]
        theirs, wanted = teacher.flatten(0, 1), labels.flatten()

        def of_rows(z: torch.Tensor, rows: slice) -> tuple[torch.Tensor, torch.Tensor]:
            u = (theirs[rows].to(head.dtype) @ head.T).float()
            return self.mixture(z, u, wanted[rows], shard)

        return loss_of_linear(hidden.flatten(0, 1), weight, of_rows, len(head), self.chunk)

    def mixture(
        self, z: torch.Tensor, u: torch.Tensor, labels: torch.Tensor, shard: Shard = WHOLE
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns the NLL's sum over valid rows and the mixture's gradient, and counts the KL.

        Args:
            z, u: logits of student and teacher, [n, V] in fp32.
            labels: [n].
            shard: whose columns z, u and the gradient have.
        """
        valid = labels != IGNORE_INDEX
        nll, gradient = cross_entropy(z, labels, shard)
        kl, of_kl = divergence(z, u, self.temperature, self.reverse, shard)
        gradient.mul_(1 - self.weight_of_kl).add_(of_kl, alpha=self.weight_of_kl)
        agree = shard.argmax(z) == shard.argmax(u)
        # All ranks' sums are added up, and tensor parallelism's have the same tokens
        counted = torch.where(valid, kl, 0.0).sum(), (agree & valid).sum()
        self.meter.add(*(x / self.copies for x in counted))
        # A masked row may hold anything, and NaN times zero is NaN
        return torch.where(valid, nll, 0.0).sum(), gradient.masked_fill_(~valid.unsqueeze(-1), 0)

"""Lets an auxiliary loss enter the graph in the middle of a model.

``Alignment.inject`` is the identity in forward. In backward it adds the gradient of coefficient *
loss to what comes from above, so that the loss works wherever block k lives: inside FSDP2, beside
a checkpointed block, on an early pipeline stage. MoE balancing losses enter the same way.

It keeps nothing of size [B, S, d_M]: the student's states are saved by reference (block k + 1 keeps
them anyway), and all fp32 work is done in backward.
"""

from collections.abc import Sequence
from typing import Any

import torch

from let_titan.alignment.diagnostics import Diagnostics
from let_titan.alignment.fitted import Fitted
from let_titan.alignment.gradient import (
    AlignmentLoss,
    added_gradient,
    added_through_map,
    gradient_of,
    gradient_through,
)
from let_titan.alignment.learned import LearnedMap
from let_titan.alignment.meter import StepMeter

ALIGNMENT_ARGUMENTS = ("teacher_hidden", "align_mask", "align_coefficient")
"""The student's forward takes these; without them it is torchtitan's."""


class _Inject(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: torch.Tensor,
        teacher: torch.Tensor,
        mask: torch.Tensor,
        coefficient: float | torch.Tensor,
        alignment: "Alignment",
        pair: int,
    ) -> torch.Tensor:
        ctx.save_for_backward(hidden, teacher, mask)
        ctx.coefficient, ctx.alignment, ctx.pair = coefficient, alignment, pair
        # The same storage, and no view: a zero-bubble pipeline detaches its stages' outputs in
        # place, which autograd refuses of views. A write to it is noticed as one to ``hidden``.
        return hidden.detach()

    @staticmethod
    def backward(ctx: Any, grad_output: torch.Tensor) -> Any:
        hidden, teacher, mask = ctx.saved_tensors
        alignment, weight = ctx.alignment, ctx.alignment.blocks[ctx.pair][1]
        if alignment.fitted:
            alignment.fitted[ctx.pair].observe(hidden, teacher, mask)
        states = (hidden, alignment.mapped(ctx.pair, teacher), mask)
        directions = alignment.directions(ctx.pair)
        # A tensor even of a float (on the CPU: no copy waits for it), so that nothing is recompiled
        # when lambda changes.
        scale = torch.as_tensor(weight * ctx.coefficient, dtype=torch.float32)
        if alignment.diagnostics is not None:
            own = scale * alignment.gradient(ctx.pair, *states)
            alignment.diagnostics.see_gradients(ctx.pair, grad_output, own)
        if alignment.learned:
            learned = alignment.learned[ctx.pair]
            through = alignment.add_through(grad_output, scale, *states, learned.matrix)
            gradient, (loss, cosine), of_map = through
            learned.add(of_map)
        else:
            gradient, (loss, cosine) = alignment.add(grad_output, scale, *states, *directions)
        alignment.meter.add(weight * loss, cosine)
        return gradient, None, None, None, None, None


class Alignment:
    """What a student needs to be aligned: at which blocks, by which loss, and where to count.

    Args:
        blocks: (block, weight) each; block counts from 1.
        loss: for example ``cosine_alignment``.
        compile_backend: compiles what backward does where given.

    Attributes:
        diagnostics: takes the step's figures where it is set.
        fitted: one per entry of ``blocks``, each fitted to its block's output; or none.
        learned: one map per entry of ``blocks`` for the student's states; or none.
    """

    diagnostics: Diagnostics | None = None
    fitted: Sequence[Fitted] = ()
    learned: Sequence[LearnedMap] = ()

    def __init__(
        self,
        blocks: Sequence[tuple[int, float]],
        loss: AlignmentLoss,
        compile_backend: str | None = None,
    ) -> None:
        self.blocks = tuple(blocks)
        self.meter = StepMeter()
        self.loss = loss
        self.add = added_gradient(loss, compile_backend)
        self.add_through = added_through_map(loss, compile_backend)

    def inject(
        self,
        block: int,
        hidden: torch.Tensor,
        teacher_hidden: Sequence[torch.Tensor],
        mask: torch.Tensor,
        coefficient: float | torch.Tensor,
    ) -> torch.Tensor:
        """Attaches the loss of every pair that ends at ``block`` to ``hidden``.

        Args:
            block: the block that gave ``hidden``, from 1.
            hidden: [B, S, d_M].
            teacher_hidden: one [B, S, d_T] per entry of ``blocks``.
            mask: [B, S] bool, true where the label is not IGNORE_INDEX.
            coefficient: lambda(s) / global number of valid tokens, a float or a 0-d tensor.

        Returns:
            ``hidden``, with the loss attached.
        """
        if self.diagnostics is not None:
            of_pairs = [
                (self.projected(i, hidden), self.mapped(i, teacher))
                for i, teacher in enumerate(teacher_hidden)
            ]
            self.diagnostics.see_block(block, of_pairs, mask)
        pairs = enumerate(zip(self.blocks, teacher_hidden, strict=True))
        for pair, ((aligned, _), teacher) in pairs:
            if aligned == block:
                hidden = _Inject.apply(hidden, teacher, mask, coefficient, self, pair)
        return hidden

    def mapped(self, pair: int, teacher: torch.Tensor) -> torch.Tensor:
        """Returns the teacher's [B, S, d_T] as the pair's loss takes it."""
        return self.fitted[pair](teacher) if self.fitted else teacher

    def directions(self, pair: int) -> tuple[torch.Tensor, ...]:
        """Returns what the pair's loss takes beside the states and the mask."""
        return self.fitted[pair].directions if self.fitted else ()

    def projected(self, pair: int, hidden: torch.Tensor) -> torch.Tensor:
        """Returns the student's [B, S, d_M] as the pair's loss takes it."""
        return hidden.float() @ self.learned[pair].matrix if self.learned else hidden

    def gradient(
        self, pair: int, hidden: torch.Tensor, teacher: torch.Tensor, mask: torch.Tensor
    ) -> torch.Tensor:
        """Returns the pair's gradient with respect to ``hidden``, [B, S, d_M], without a weight.

        Args:
            pair: an index of ``blocks``.
            hidden: [B, S, d_M].
            teacher: from ``mapped``.
            mask: [B, S] bool.
        """
        if self.learned:
            matrix = self.learned[pair].matrix
            return gradient_through(self.loss, hidden, teacher, mask, matrix)[0]
        return gradient_of(self.loss)(hidden, teacher, mask, *self.directions(pair))[0]

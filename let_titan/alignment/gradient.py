"""A loss's gradient with respect to the student's states, and its sum with what comes from above.

Losses are written as losses; torch differentiates them. The paper's own loss is written as its
gradient, too, which takes the states through memory once.
"""

from collections.abc import Callable

import torch

from let_titan.alignment.cosine import cosine_alignment, cosine_gradient

# (hidden [B, S, d_M], teacher [B, S, d_T], mask [B, S], what a ``Fitted`` gives)
#     -> (loss sum, cosine sum)
AlignmentLoss = Callable[..., tuple[torch.Tensor, torch.Tensor]]
# the same arguments -> (gradient [B, S, d_M], (loss sum, cosine sum))
AlignmentGradient = Callable[..., tuple[torch.Tensor, tuple[torch.Tensor, torch.Tensor]]]
# (grad_output [B, S, d_M], scale, then AlignmentLoss's arguments)
#     -> (grad_output + scale * gradient, sums)
AddedGradient = Callable[..., tuple[torch.Tensor, tuple[torch.Tensor, torch.Tensor]]]
# (grad_output [B, S, d_M], scale, hidden, teacher, mask, W [d_M, d_T])
#     -> (grad_output + scale * gradient, sums, scale * W's own)
AddedThroughMap = Callable[
    [torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor],
    tuple[torch.Tensor, tuple[torch.Tensor, torch.Tensor], torch.Tensor],
]

CLOSED_FORMS: dict[AlignmentLoss, AlignmentGradient] = {cosine_alignment: cosine_gradient}
"""Losses whose gradient is written out."""


def gradient_of(loss: AlignmentLoss) -> AlignmentGradient:
    """Returns the function that gives ``loss``'s gradient: its closed form, or torch's."""
    return CLOSED_FORMS.get(loss) or differentiated(loss)


def differentiated(loss: AlignmentLoss) -> AlignmentGradient:
    """Returns ``loss``'s gradient by ``torch.func.grad``."""

    def with_aux(
        hidden: torch.Tensor, *others: torch.Tensor
    ) -> tuple[torch.Tensor, tuple[torch.Tensor, torch.Tensor]]:
        total, cosine = loss(hidden, *others)
        return total, (total, cosine)

    return torch.func.grad(with_aux, has_aux=True)


def added_gradient(loss: AlignmentLoss, compile_backend: str | None = None) -> AddedGradient:
    """Returns the function that adds ``loss``'s scaled gradient to what comes from above.

    The addition is part of it, so that a compiled version stores the sum and never the gradient
    itself. For the paper's loss inductor makes one kernel, which reads a token's states twice, the
    second time from the cache. So memory sees one read of the student's states, of the teacher's
    and of the incoming gradient, and one write: 3 d_M + d_T elements a token (1.4B under
    SmolLM-135M in bf16: 13.1 KiB). Nothing else of the states' size is made (tests/test_fused.py;
    recipes/gpu_kernels.py for a GPU), so we need no kernel of our own.

    Args:
        loss: for example ``cosine_alignment``.
        compile_backend: compiles the function where given.
    """
    gradient = gradient_of(loss)

    def add(
        grad_output: torch.Tensor,
        scale: torch.Tensor,
        hidden: torch.Tensor,
        teacher: torch.Tensor,
        mask: torch.Tensor,
        *directions: torch.Tensor,
    ) -> tuple[torch.Tensor, tuple[torch.Tensor, torch.Tensor]]:
        own, sums = gradient(hidden, teacher, mask, *directions)
        return (grad_output + scale * own).to(grad_output.dtype), sums

    return add if compile_backend is None else torch.compile(add, backend=compile_backend)


def gradient_through(
    loss: AlignmentLoss,
    hidden: torch.Tensor,
    teacher: torch.Tensor,
    mask: torch.Tensor,
    matrix: torch.Tensor,
) -> tuple[torch.Tensor, tuple[torch.Tensor, torch.Tensor], torch.Tensor]:
    """The gradients of ``loss`` of hidden @ matrix, all in fp32.

    Args:
        loss: for example ``cosine_alignment``; its gradient is zero where ``mask`` is false.
        hidden: [B, S, d_M].
        teacher: [B, S, d_T].
        mask: [B, S] bool.
        matrix: W, [d_M, d_T].

    Returns:
        (with respect to ``hidden``, [B, S, d_M]; (loss sum, cosine sum); to W, [d_M, d_T]).
    """
    # A masked token may hold anything, and NaN times a gradient of zero is NaN
    state = torch.where(mask.unsqueeze(-1), hidden.float(), 0.0)
    own, sums = gradient_of(loss)(state @ matrix, teacher, mask)
    return own @ matrix.T, sums, state.flatten(0, 1).T @ own.flatten(0, 1)


def added_through_map(loss: AlignmentLoss, compile_backend: str | None = None) -> AddedThroughMap:
    """Returns ``added_gradient``'s counterpart where a learned map lies between."""

    def add(
        grad_output: torch.Tensor,
        scale: torch.Tensor,
        hidden: torch.Tensor,
        teacher: torch.Tensor,
        mask: torch.Tensor,
        matrix: torch.Tensor,
    ) -> tuple[torch.Tensor, tuple[torch.Tensor, torch.Tensor], torch.Tensor]:
        own, sums, of_map = gradient_through(loss, hidden, teacher, mask, matrix)
        return (grad_output + scale * own).to(grad_output.dtype), sums, scale * of_map

    return add if compile_backend is None else torch.compile(add, backend=compile_backend)

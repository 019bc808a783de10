"""The paper's alignment loss, and its gradient in closed form."""

import torch
import torch.nn.functional as F

from let_titan.alignment.width import interpolate_width

EPS = 1e-8
"""Below this a norm counts as this much: ``F.cosine_similarity``'s own."""


def cosine_alignment(
    hidden: torch.Tensor, teacher: torch.Tensor, mask: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Sums minus the cosine of student and teacher states over the valid tokens, in fp32.

    L_proj of the paper (section 3) is this sum divided by the number of valid tokens; the caller
    divides, once, by the *global* number.

    Args:
        hidden: the student's [B, S, d_M], output of block k.
        teacher: the teacher's [B, S, d_T], interpolated to d_M here.
        mask: [B, S] bool, true where the label is not IGNORE_INDEX.

    Returns:
        (loss sum, cosine sum), two fp32 scalars.
    """
    target = interpolate_width(teacher.float(), hidden.shape[-1])
    cosine = F.cosine_similarity(hidden.float(), target, dim=-1, eps=EPS)  # [B, S]
    # where, not a product: a masked token may hold anything, and 0 * inf is NaN
    total = torch.where(mask, cosine, 0.0).sum()
    return -total, total


def cosine_gradient(
    hidden: torch.Tensor, teacher: torch.Tensor, mask: torch.Tensor
) -> tuple[torch.Tensor, tuple[torch.Tensor, torch.Tensor]]:
    """The gradient of ``cosine_alignment`` with respect to ``hidden``, with its sums.

    For h = hidden, u = the interpolated teacher and c their cosine, a token's gradient is
    (c h / |h| - u / |u|) / |h|: three dot products, then one sum of both vectors. Autograd would
    take the same states through memory several times.

    Returns:
        ([B, S, d_M] in fp32, (loss sum, cosine sum)).
    """
    state = hidden.float()
    target = interpolate_width(teacher.float(), hidden.shape[-1])
    norm = state.square().sum(-1, keepdim=True).sqrt().clamp_min(EPS)  # [B, S, 1]
    product = norm * target.square().sum(-1, keepdim=True).sqrt().clamp_min(EPS)
    cosine = (state * target).sum(-1, keepdim=True) / product
    valid = mask.unsqueeze(-1)
    gradient = torch.where(valid, cosine / norm.square() * state - target / product, 0.0)
    total = torch.where(valid, cosine, 0.0).sum()
    return gradient, (-total, total)

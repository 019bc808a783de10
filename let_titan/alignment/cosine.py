"""The paper's alignment loss."""

import torch
import torch.nn.functional as F

from let_titan.alignment.width import interpolate_width


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
    cosine = F.cosine_similarity(hidden.float(), target, dim=-1)  # [B, S]
    # where, not a product: a masked token may hold anything, and 0 * inf is NaN
    total = torch.where(mask, cosine, 0.0).sum()
    return -total, total

"""Width maps: how a teacher's hidden vector of d_T meets a student's of d_M."""

import torch
import torch.nn.functional as F


def interpolate_width(states: torch.Tensor, width: int) -> torch.Tensor:
    """Interpolates each hidden vector linearly along its feature axis (paper, section 3).

    The vector is read as d_T samples of a line, sampled anew at the centres of ``width`` equal
    cells (``align_corners=False``, torch's default; the paper does not say which).

    Args:
        states: [B, S, d_T], any float dtype.
        width: d_M.

    Returns:
        [B, S, d_M] in the dtype of ``states``; ``states`` itself where the widths are equal.
    """
    if states.shape[-1] == width:
        return states
    rows = states.flatten(0, -2).unsqueeze(1)  # [B * S, 1, d_T]
    mapped = F.interpolate(rows, size=width, mode="linear", align_corners=False)
    return mapped.view(*states.shape[:-1], width)

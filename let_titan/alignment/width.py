"""Width maps: how a teacher's hidden vector of d_T meets a student's of d_M."""

import torch


def interpolate_width(states: torch.Tensor, width: int) -> torch.Tensor:
    """Interpolates each hidden vector linearly along its feature axis (paper, section 3).

    The vector is read as d_T samples of a line, resampled at the centres of ``width`` equal cells:
    ``F.interpolate(mode="linear", align_corners=False)``, torch's default (the paper does not say
    which). Written out, since torch's CUDA kernel for it loops over all tokens in a handful of
    thread blocks. ``torch.lerp`` would not do either: inductor takes it apart into so many ops that
    a GPU's kernel would store their result, in fp32, for its second pass over a token
    (recipes/gpu_kernels.py).

    Args:
        states: [B, S, d_T], any float dtype.
        width: d_M.

    Returns:
        [B, S, d_M] in the dtype of ``states``; ``states`` itself where the widths are equal.
    """
    if states.shape[-1] == width:
        return states
    d_t = states.shape[-1]
    centres = torch.arange(width, device=states.device, dtype=torch.float32) + 0.5
    positions = (centres * (d_t / width) - 0.5).clamp(0, d_t - 1)
    left = positions.long()
    right = (left + 1).clamp(max=d_t - 1)
    share = positions - left
    return ((1 - share) * states[..., left] + share * states[..., right]).to(states.dtype)

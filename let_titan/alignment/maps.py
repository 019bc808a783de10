"""Fixed width maps: the teacher's states are brought to d_M before the student sees them.

``interpolate`` has no place here: the losses do it themselves, so that [B, S, d_M] is never kept.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F

SEED = 0
"""Of the orthogonal map, on every rank and after every resume; no other random state is touched."""

BEFORE_THE_STUDENT = ("truncate", "orthogonal")
"""The values of ``let.width_map`` after which the student is given states of its own width."""

WidthMap = Callable[[torch.Tensor], torch.Tensor]


def truncate_width(states: torch.Tensor, width: int) -> torch.Tensor:
    """Keeps the first ``width`` features of [B, S, d_T], or appends zeros: [B, S, d_M]."""
    return F.pad(states, (0, width - states.shape[-1]))


def orthogonal_matrix(d_t: int, width: int) -> torch.Tensor:
    """Draws [d_T, d_M] with orthonormal rows (d_M >= d_T) or columns, in fp32 on the CPU.

    The Q of a Gaussian matrix, with R's signs taken into it, is uniform over such matrices
    (Mezzadri, 2007).
    """
    generator = torch.Generator().manual_seed(SEED)
    tall = torch.randn(max(d_t, width), min(d_t, width), generator=generator, dtype=torch.float64)
    q, r = torch.linalg.qr(tall)
    q = q * r.diagonal().sign()
    return (q if d_t >= width else q.T).float().contiguous()


def build_width_map(name: str, d_t: int, width: int, device: torch.device) -> WidthMap | None:
    """Returns [B, S, d_T] -> [B, S, d_M] of ``let.width_map`` = ``name``; None: the losses map."""
    if name == "truncate":
        return lambda states: truncate_width(states, width)
    if name == "orthogonal":
        matrix = orthogonal_matrix(d_t, width).to(device)
        return lambda states: (states.float() @ matrix).to(states.dtype)
    return None

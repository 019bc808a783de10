"""What a cosine to the teacher consists of: a direction, a table of tokens, and context."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F

from let_titan.alignment import interpolate_width


@dataclass(frozen=True)
class Closeness:
    """Mean cosines of states to the teacher's, over tokens whose id occurs more than once.

    Attributes:
        own: to the teacher's state of the same token: what LET maximises.
        same_id: to the teacher's state at another occurrence of its id.
        any: to the teacher's state of any other token.
    """

    own: float
    same_id: float
    any: float


def targets_of(states: torch.Tensor, width: int, centre: bool) -> torch.Tensor:
    """Returns the teacher's [N, d_T] as a student of ``width`` meets them, of length one."""
    if centre:
        states = states - states.mean(0)
    return F.normalize(interpolate_width(states, width), dim=-1)


def sums_by_id(states: torch.Tensor, ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns of each of N tokens its id's states in sum, [N, d], and their count, [N, 1]."""
    _, index, counts = ids.unique(return_inverse=True, return_counts=True)
    sums = states.new_zeros(len(counts), states.shape[-1]).index_add_(0, index, states)
    return sums[index], counts[index].unsqueeze(-1)


def closeness(states: torch.Tensor, targets: torch.Tensor, ids: torch.Tensor) -> Closeness:
    """Measures ``states``, [N, d], against ``targets``, [N, d] of length one.

    Args:
        states: of the student.
        targets: from ``targets_of``.
        ids: [N], of the tokens that both have read there.
    """
    states = F.normalize(states, dim=-1)
    sums, counts = sums_by_id(targets, ids)
    again = counts.squeeze(-1) > 1
    states, own, counts = states[again], targets[again], counts[again]
    of_id = (sums[again] - own) / (counts - 1)
    of_any = (targets.sum(0) - own) / (len(targets) - 1)
    return Closeness(*(float((states * other).sum(-1).mean()) for other in (own, of_id, of_any)))


def ceilings(targets: torch.Tensor, ids: torch.Tensor) -> Closeness:
    """Returns what can be had: by all that is known (1), by a vector an id, by one vector for all.

    The vector of an id is the direction of the mean over its other occurrences.
    """
    sums, counts = sums_by_id(targets, ids)
    again = counts.squeeze(-1) > 1
    table = F.normalize(sums[again] - targets[again], dim=-1)
    constant = F.normalize(targets.mean(0), dim=-1)
    of_id = float((table * targets[again]).sum(-1).mean())
    return Closeness(1.0, of_id, float((targets[again] @ constant).mean()))

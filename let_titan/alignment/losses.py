"""Alignment losses beside the paper's cosine, by name.

All are summed over the valid tokens in fp32, and the caller divides once by the global number of
them. Every loss but CKA is a sum over tokens, so that microbatches and ranks add up; CKA is a sum
over sequences, and needs them whole. Below, h [d_M] is the student's state of a token and t the
teacher's, brought to d_M by interpolation where no other width map did it.
"""

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F

from let_titan.alignment.cca import cca
from let_titan.alignment.cosine import cosine_alignment
from let_titan.alignment.gradient import AlignmentLoss
from let_titan.alignment.width import interpolate_width
from let_titan.names import Names

# (h, t), [B, S, d_M] each, fp32 -> [B, S]
TokenLoss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
Sums = tuple[torch.Tensor, torch.Tensor]

TINY = 1e-12
"""Keeps log and division finite where both sides are equal or zero."""


def logsum(state: torch.Tensor, target: torch.Tensor, alpha: float = 4.0) -> torch.Tensor:
    """log sum_i |h_i / |h| - t_i / |t||^alpha, [B, S].

    From "Understanding the Role of the Projector in Knowledge Distillation" (Miles and Mikolajczyk,
    AAAI 2024), alpha around 4, with L2 norms in place of its batch norm and one logarithm a token,
    so that no token depends on its batch.
    """
    difference = F.normalize(state, dim=-1) - F.normalize(target, dim=-1)
    return difference.abs().pow(alpha).sum(-1).add(TINY).log()


def smooth_l1(state: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """mean_i huber(LN(h)_i - LN(t)_i), [B, S]; huber(x) = x^2 / 2 below 1, |x| - 1/2 above.

    LN is a layer norm over features without weights: the loss of data2vec (Baevski et al., 2022),
    with both sides normalised.
    """
    ours, theirs = (F.layer_norm(x, x.shape[-1:]) for x in (state, target))
    return F.smooth_l1_loss(ours, theirs, reduction="none").mean(-1)


def mse(state: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """mean_i (h_i - t_i)^2, [B, S]: scale counts (FitNets, Romero et al., 2015)."""
    return (state - target).square().mean(-1)


def of_tokens(loss: TokenLoss) -> AlignmentLoss:
    """Returns the ``AlignmentLoss`` that is ``loss`` of each valid token, as ``over_tokens``.

    Of a masked token ``loss`` sees zeros on both sides, and what it says there is left out.
    """
    return partial(over_tokens, loss)


def over_tokens(
    loss: TokenLoss, hidden: torch.Tensor, teacher: torch.Tensor, mask: torch.Tensor
) -> Sums:
    """Sums ``loss`` over the valid tokens.

    Args:
        loss: one number a token.
        hidden: [B, S, d_M].
        teacher: [B, S, d_T].
        mask: [B, S] bool.

    Returns:
        (loss sum, cosine sum), two fp32 scalars; the cosine is logged beside any loss.

    Raises:
        ValueError: ``loss`` gives another shape, which might be broadcast.
    """
    valid = mask.unsqueeze(-1)
    # Masked tokens may hold anything: they must be gone before anything is computed, or backward
    # would multiply their NaN by zero.
    state = torch.where(valid, hidden.float(), 0.0)
    target = torch.where(valid, interpolate_width(teacher.float(), hidden.shape[-1]), 0.0)
    each = loss(state, target)
    if each.shape != mask.shape:
        raise ValueError(
            f"A loss of tokens makes {list(mask.shape)} of states {list(state.shape)}, a number a "
            f"token, and this one made {list(each.shape)}: reduce the last axis alone."
        )
    return torch.where(mask, each, 0.0).sum(), cosine_alignment(state.detach(), target, mask)[1]


def cka(hidden: torch.Tensor, teacher: torch.Tensor, mask: torch.Tensor) -> Sums:
    """-sum_b n_b CKA(H_b, T_b): linear centred kernel alignment of each sequence's valid tokens.

    CKA(H, T) = |H^T T|_F^2 / (|H^T H|_F |T^T T|_F) with H [n, d_M] and T [n, d_T] centred over
    their n rows (Kornblith et al., ICML 2019). It lies in 0..1, takes any two widths, and does not
    see a rotation, a scale or a shift of either side. Computed from the [S, S] Gram matrices. A
    sequence with a single valid token, which centring takes to zero, has a value of 0.

    Args and returns as ``over_tokens``.
    """
    products = [gram(centred(x.float(), mask)) for x in (hidden, teacher)]
    ours, theirs = products
    similarity = (ours * theirs).sum((-1, -2))
    norms = ours.square().sum((-1, -2)) * theirs.square().sum((-1, -2))
    value = similarity / norms.clamp_min(TINY).sqrt()  # [B]
    width = hidden.shape[-1]
    cosine = cosine_alignment(hidden.detach(), interpolate_width(teacher, width), mask)[1]
    return -(mask.sum(-1) * value).sum(), cosine


def centred(states: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Returns [B, S, d] without the mean of each sequence's valid tokens; others are zero."""
    valid = mask.unsqueeze(-1)
    states = torch.where(valid, states, 0.0)
    mean = states.sum(1, keepdim=True) / valid.sum(1, keepdim=True).clamp_min(1)
    return torch.where(valid, states - mean, 0.0)


def gram(states: torch.Tensor) -> torch.Tensor:
    """Returns X X^T / |X|_F^2, [B, S, S]: scaled so that fp32 holds its squares."""
    scale = states.square().sum((-1, -2), keepdim=True).clamp_min(TINY)
    return states @ states.transpose(-1, -2) / scale


LOSSES: Names[AlignmentLoss] = Names(
    {
        "cosine": cosine_alignment,
        "logsum": of_tokens(logsum),
        "smooth_l1": of_tokens(smooth_l1),
        "mse": of_tokens(mse),
        "cka": cka,
        "cca": cca,
    }
)
"""What ``let.loss`` may name; a module of the user's adds to it (docs/extend.md)."""


def alignment_loss(name: str, alpha: float) -> AlignmentLoss:
    """Returns the loss of ``let.loss`` = ``name``; ``alpha`` is let.alpha, for logsum."""
    return of_tokens(partial(logsum, alpha=alpha)) if name == "logsum" else LOSSES[name]

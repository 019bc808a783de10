"""Canonical correlations: what the student's states and the teacher's have in common, maximised."""

import torch
import torch.distributed as dist

from let_titan.alignment.cosine import cosine_alignment
from let_titan.alignment.width import interpolate_width

ROWS = 4096
"""Tokens whose products are taken at once, in float64."""

TINY = 1e-12
"""The least variance that a side is taken to have."""


def cca_bytes(width: int, d_t: int) -> int:
    """Returns what a pair's covariances take: those of the past and of the step, in float64."""
    return 2 * 8 * (1 + width + d_t) ** 2


def cca(
    hidden: torch.Tensor,
    teacher: torch.Tensor,
    mask: torch.Tensor,
    u: torch.Tensor,
    v: torch.Tensor,
    correlations: torch.Tensor,
    mean: torch.Tensor,
    offset: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Sums minus the mean canonical correlation, to first order, over the valid tokens, in fp32.

    With x = U^T (h - mean) and y = V^T (t - mean), the canonical variates, r of them, of
    correlations c_j, a token's loss is

        -(1 / r) sum_j [x_j y_j - c_j (x_j^2 + y_j^2) / 2] - offset

    the expansion of -(1 / r) sum_j c_j to first order in the covariances, about those from which
    the directions were found: there its mean over tokens is that value, and its gradient that of
    Deep CCA (Andrew et al., ICML 2013). Unlike a batch's correlations it is a sum over tokens, so
    that microbatches and ranks add up. Directions of zero give a loss of zero.

    Args:
        hidden: [B, S, d_M].
        teacher: [B, S, d_T].
        mask: [B, S] bool.
        u, v, correlations, mean, offset: ``Cca.directions``.

    Returns:
        (loss sum, cosine sum), two fp32 scalars.
    """
    valid, (mean_h, mean_t) = mask.unsqueeze(-1), mean.split([u.shape[0], v.shape[0]])
    x = torch.where(valid, hidden.float() - mean_h, 0.0) @ u
    y = torch.where(valid, teacher.float() - mean_t, 0.0) @ v
    common = (x * y - correlations * (x.square() + y.square()) / 2).mean(-1) + offset
    target = interpolate_width(teacher, hidden.shape[-1])
    cosine = cosine_alignment(hidden.detach(), target, mask)[1]
    return -torch.where(mask, common, 0.0).sum(), cosine


class Cca:
    """Regularised CCA of running covariances (Hotelling, 1936; Vinod, 1976, for the ridge).

    With S_hh, S_tt and S_ht the covariances over the valid tokens of all ranks in the steps before,
    weighted down by ``decay`` with each step since, and a ridge on the diagonals,

        S_hh^-1/2 S_ht S_tt^-1/2 = P C Q^T,  U = S_hh^-1/2 P,  V = S_tt^-1/2 Q

    (computed with Cholesky factors in place of the square roots, which gives the same U and V).
    They are found as soon as the covariances rest on enough tokens, then again every ``every``
    steps; before that all are zero. Equal on all ranks.

    Over too few tokens nearly any two sides correlate: unrelated states of widths p and q reach,
    over n tokens, correlations of up to sqrt(a (1 - b)) + sqrt(b (1 - a)), a = p / n, b = q / n
    (Wachter, 1980). At n = p + q that is 1; at n = 10 (p + q), with p = q, it is 0.44.

    Shifting, scaling or rotating either side leaves the variates as they are; without the ridge, so
    does any invertible map.

    Args:
        width, d_t: d_M and d_T.
        ridge: in units of the side's mean variance.
        decay: in 0..1.
        every: steps.
        tokens: per feature of both sides, on which the covariances must rest. If their memory of
            1 / (1 - decay) steps never holds that many, directions are found once it is full.
        device: where the states are.

    Attributes:
        directions: what ``cca`` takes: U [d_M, r], V [d_T, r], correlations [r], the means
            [d_M + d_T] and the offset, in fp32.
    """

    def __init__(
        self,
        width: int,
        d_t: int,
        ridge: float,
        decay: float,
        every: int,
        tokens: float,
        device: torch.device,
    ) -> None:
        self.width, self.d_t = width, d_t
        self.ridge, self.decay, self.every = ridge, decay, every
        self.least = tokens * (width + d_t)
        # sum (1, h, t)^T (1, h, t): of the steps so far, and of the present one on this rank
        size = 1 + width + d_t
        self._past = torch.zeros(size, size, dtype=torch.float64, device=device)
        self._present = torch.zeros_like(self._past)
        self._steps = 0
        self._known = False
        r = min(width, d_t)
        shapes = ((width, r), (d_t, r), (r,), (width + d_t,), ())
        self.directions = tuple(torch.zeros(shape, device=device) for shape in shapes)

    def __call__(self, states: torch.Tensor) -> torch.Tensor:
        """Leaves the teacher's states at their width."""
        return states

    def observe(self, hidden: torch.Tensor, teacher: torch.Tensor, mask: torch.Tensor) -> None:
        """Counts the valid tokens of [B, S, d_M] and [B, S, d_T]; each token comes once a step."""
        flat = (hidden.flatten(0, 1), teacher.flatten(0, 1), mask.flatten())
        for h, t, valid in zip(*(x.split(ROWS) for x in flat), strict=True):
            kept = valid.unsqueeze(-1)
            rows = torch.cat([torch.where(kept, x, 0.0).double() for x in (kept, h, t)], -1)
            self._present += rows.T @ rows

    def end_step(self) -> None:
        """Takes in the step's tokens of all ranks, and fits if it is time; every rank calls."""
        dist.all_reduce(self._present)
        self._past.mul_(self.decay).add_(self._present)
        self._present.zero_()
        self._steps += 1
        if self._is_time():
            self.directions = tuple(x.float().contiguous() for x in self._find())
            for found in self.directions:
                dist.broadcast(found, 0)  # devices of different kinds may round apart

    def discard_step(self) -> None:
        """Forgets the present step, which was left out of the run; every rank calls."""
        self._present.zero_()

    def _is_time(self) -> bool:
        if self._known:
            return self._steps % self.every == 0
        n = self._past[0, 0].item()
        is_full = self._steps * (1 - self.decay) >= 1
        self._known = n > 0 and (n >= self.least or is_full)
        return self._known

    def _find(self) -> tuple[torch.Tensor, ...]:
        moments = self._past / self._past[0, 0]
        mean = moments[0, 1:]
        covariance = moments[1:, 1:] - torch.outer(mean, mean)
        cut = self.width
        sides, ridges = [], []
        for block in (covariance[:cut, :cut], covariance[cut:, cut:]):
            ridges.append(self.ridge * block.diagonal().mean().clamp_min(TINY))
            identity = torch.eye(len(block), dtype=block.dtype, device=block.device)
            sides.append(torch.linalg.cholesky(block + ridges[-1] * identity))
        left, right = sides
        half = torch.linalg.solve_triangular(left, covariance[:cut, cut:], upper=False)
        whitened = torch.linalg.solve_triangular(right, half.T, upper=False).T
        p, correlations, q = torch.linalg.svd(whitened, full_matrices=False)
        u = torch.linalg.solve_triangular(left.T, p, upper=True)
        v = torch.linalg.solve_triangular(right.T, q.T, upper=True)
        kept = 1 - (ridges[0] * u.square().sum(0) + ridges[1] * v.square().sum(0)) / 2
        return u, v, correlations, mean, (correlations * kept).mean()

    def state(self) -> dict[str, torch.Tensor]:
        """Returns what a resume needs, equal on all ranks."""
        found = {f"directions.{i}": x.cpu() for i, x in enumerate(self.directions)}
        return {**found, "sums": self._past.cpu(), "steps": torch.tensor(self._steps)}

    def load(self, state: dict[str, torch.Tensor]) -> None:
        for i, found in enumerate(self.directions):
            found.copy_(state[f"directions.{i}"])
        self._past.copy_(state["sums"])
        self._steps = int(state["steps"])
        self._known = bool(self.directions[0].any())

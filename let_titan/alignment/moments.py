"""Running moments of the teacher's states, to centre or standardise them.

A teacher's states share a strong direction, and a raw cosine rewards matching it alone.
"""

import torch
import torch.distributed as dist

EPS = 1e-6
"""Added to a feature's variance."""


class RunningMoments:
    """Mean and variance a feature over all valid tokens of the steps *before* the present one.

    So all microbatches and ranks of a step are normalised alike, in any layout, and a resumed run
    goes on exactly. In the first step there are no moments, and states pass unchanged. The teacher
    never changes, so nothing is forgotten: sums in float64 over the run, equal on all ranks.

    Args:
        mode: "center" subtracts the mean; "standardize" divides by the deviation, too.
        width: d_T.
        device: where the states are.
    """

    def __init__(self, mode: str, width: int, device: torch.device) -> None:
        self.mode = mode
        # count, sum, sum of squares: of the steps so far, and of the present one on this rank
        self._past = torch.zeros(2 * width + 1, dtype=torch.float64, device=device)
        self._present = torch.zeros_like(self._past)
        self._known = False

    def observe(self, states: torch.Tensor, mask: torch.Tensor) -> None:
        """Counts the valid tokens of [B, S, d_T] for the steps to come."""
        valid = torch.where(mask.unsqueeze(-1), states, 0.0).flatten(0, 1).double()
        count = mask.sum().double().view(1)
        self._present += torch.cat((count, valid.sum(0), valid.square().sum(0)))

    def __call__(self, states: torch.Tensor) -> torch.Tensor:
        """Returns [B, S, d_T] normalised by the steps before this one, in its dtype."""
        if not self._known:
            return states
        width = states.shape[-1]
        count, total, squares = self._past.split([1, width, width])
        mean = total / count
        found = states.float() - mean.float()
        if self.mode == "standardize":
            variance = (squares / count - mean.square()).clamp_min(0)
            found = found * (variance + EPS).rsqrt().float()
        return found.to(states.dtype)

    def end_step(self) -> None:
        """Takes in the step's tokens of all ranks, each of which lies on one; every rank calls."""
        dist.all_reduce(self._present)
        self._past += self._present
        self._present.zero_()
        # Asked until it is so: on a GPU the answer makes the host wait.
        self._known = self._known or bool(self._past[0] > 0)

    def discard_step(self) -> None:
        """Forgets the present step, which was left out of the run; every rank calls."""
        self._present.zero_()

    def state(self) -> list[float]:
        """Returns what a resume needs; Python's floats hold it exactly."""
        return self._past.tolist()

    def load(self, state: list[float]) -> None:
        self._past.copy_(torch.tensor(state, dtype=torch.float64))
        self._known = state[0] > 0

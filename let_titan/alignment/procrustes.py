"""The Procrustes map: the rotation that brings the teacher's states closest to the student's."""

import torch
import torch.distributed as dist
import torch.nn.functional as F

from let_titan.alignment.maps import orthogonal_matrix


class Procrustes:
    """W [d_T, d_M] with orthonormal rows (d_M >= d_T) or columns, fitted to a block's output.

    With t and h the states of a token, both of length one,

        W = argmax sum <t W, h> = U V^T,  where  U S V^T = sum t^T h

    over all valid tokens of the steps since W was fitted last (Schonemann, 1966). For d_M >= d_T
    this is the isometry of the highest mean cosine. Fitted in closed form after the first step and
    then every ``every`` steps; until then it is the fixed one of ``orthogonal``. No gradient
    reaches it.

    Args:
        d_t, width: d_T and d_M.
        every: steps.
        device: where the states are.
    """

    directions: tuple[torch.Tensor, ...] = ()

    def __init__(self, d_t: int, width: int, every: int, device: torch.device) -> None:
        self.every = every
        self.matrix = orthogonal_matrix(d_t, width).to(device)
        # sum t^T h: of the steps since the last fit over all ranks; of this step on this rank
        self._past = torch.zeros_like(self.matrix)
        self._present = torch.zeros_like(self.matrix)
        self._steps = 0

    def __call__(self, states: torch.Tensor) -> torch.Tensor:
        """Maps [B, S, d_T] to [B, S, d_M], in its dtype."""
        return (states.float() @ self.matrix).to(states.dtype)

    def observe(self, hidden: torch.Tensor, teacher: torch.Tensor, mask: torch.Tensor) -> None:
        """Counts the valid tokens of [B, S, d_M] and [B, S, d_T]; each token comes once a step."""
        ours, theirs = (
            F.normalize(torch.where(mask.unsqueeze(-1), x, 0.0).float(), dim=-1).flatten(0, 1)
            for x in (hidden, teacher)
        )
        self._present += theirs.T @ ours

    def end_step(self) -> None:
        """Takes in the step's tokens of all ranks and fits W if it is time; every rank calls."""
        dist.all_reduce(self._present)
        self._past += self._present
        self._present.zero_()
        self._steps += 1
        if self._steps > 1 and self._steps % self.every:
            return
        if self._past.any():
            u, _, v = torch.linalg.svd(self._past.double(), full_matrices=False)
            self.matrix = (u @ v).float()
            dist.broadcast(self.matrix, 0)  # devices of different kinds may round apart
        self._past.zero_()

    def discard_step(self) -> None:
        """Forgets the present step, which was left out of the run; every rank calls."""
        self._present.zero_()

    def state(self) -> dict[str, torch.Tensor]:
        """Returns what a resume needs, equal on all ranks."""
        steps = torch.tensor(self._steps)
        return {"matrix": self.matrix.cpu(), "sums": self._past.cpu(), "steps": steps}

    def load(self, state: dict[str, torch.Tensor]) -> None:
        self.matrix.copy_(state["matrix"])
        self._past.copy_(state["sums"])
        self._steps = int(state["steps"])

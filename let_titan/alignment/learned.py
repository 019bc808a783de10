"""Learned width maps: a matrix a pair, trained with the student while there is a teacher."""

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.utils import parametrizations

from let_titan.alignment.maps import SEED, orthogonal_matrix

LEARNED = ("linear", "orthogonal_learned")
"""The values of ``let.width_map`` that have parameters."""


def map_bytes(width: int, d_t: int) -> int:
    """Returns what one map takes beside a student: W, its gradient, two moments, in fp32."""
    return 4 * 4 * width * d_t


def map_flops(width: int, d_t: int) -> int:
    """Returns what one map takes a token: h W, and the gradients of both."""
    return 6 * width * d_t


class LearnedMap(nn.Module):
    """W [d_M, d_T]: the student's h W meets the teacher's state as it is.

    ``linear``: W is the parameter. ``orthogonal_learned``: W has orthonormal columns (d_M >= d_T)
    or rows at every step, as the Cayley map of a skew-symmetric parameter (Lezcano-Casado, 2019).
    Both begin as the same random matrix with orthonormal columns or rows, in every layout.

    W is whole on every rank, and so is its gradient once ``finish`` has summed it. The student's
    layout does not matter, since each token's state lies whole on one rank.

    Args:
        name: of ``LEARNED``.
        width, d_t: d_M and d_T.
        device: where the states are.

    Attributes:
        matrix: the step's W, fp32, without a graph.
    """

    matrix: torch.Tensor

    def __init__(self, name: str, width: int, d_t: int, device: torch.device) -> None:
        super().__init__()
        self.weight = nn.Parameter(orthogonal_matrix(width, d_t))
        if name == "orthogonal_learned":
            # torch completes W to a square one at random. The CPU's generator alone is set for it:
            # torch.manual_seed would set every GPU's, too, which nothing puts back.
            with torch.random.fork_rng(devices=[]):
                torch.default_generator.manual_seed(SEED)
                parametrizations.orthogonal(self, "weight", "cayley")
        self.to(device)
        self.begin_step()

    def begin_step(self) -> None:
        """Makes W of the parameter; every token of the step meets this one."""
        weight = self.weight
        self._with_graph = (weight,)  # by itself it would be registered as one more parameter
        self.matrix = weight.detach()
        # NCCL sums row by row only, and W with orthonormal rows is a tall matrix's transpose.
        self._gradient = torch.zeros_like(self.matrix, memory_format=torch.contiguous_format)

    def add(self, gradient: torch.Tensor) -> None:
        """Takes W's gradient, [d_M, d_T] in fp32, of some of this rank's tokens."""
        self._gradient += gradient

    def finish(self) -> None:
        """Gives the parameter the gradient of all ranks' tokens; every rank calls, once a step."""
        dist.all_reduce(self._gradient)
        torch.autograd.backward(self._with_graph, (self._gradient,))

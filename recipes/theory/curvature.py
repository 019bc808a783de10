"""Curvature of a loss in some of its weights by Hessian-vector products: nothing of size n^2.

``Hessian`` is scipy's LinearOperator, so that ARPACK's Lanczos (scipy.sparse.linalg.eigsh) finds
the ends of its spectrum. The graph of the gradient is made once; each product is one pass back
through it.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
from scipy.sparse.linalg import LinearOperator, eigsh

TOLERANCE = 1e-2
"""Of an eigenvalue, relative."""


class Hessian(LinearOperator):
    """The Hessian of ``loss`` in ``weights``, all others held.

    Args:
        loss: a scalar with a graph, differentiable twice.
        weights: those that count, n numbers in all.

    Attributes:
        n_products: how many Hessian-vector products were made.
    """

    def __init__(self, loss: torch.Tensor, weights: Sequence[torch.Tensor]) -> None:
        self.weights = tuple(weights)
        self.gradients = torch.autograd.grad(loss, self.weights, create_graph=True)
        self.n_products = 0
        n = sum(weight.numel() for weight in self.weights)
        super().__init__(dtype=np.dtype(str(loss.dtype).removeprefix("torch.")), shape=(n, n))

    def product(self, vector: torch.Tensor) -> torch.Tensor:
        """Returns H v, [n], for v, [n]."""
        self.n_products += 1
        parts = vector.split([weight.numel() for weight in self.weights])
        shaped = [part.view_as(weight) for part, weight in zip(parts, self.weights, strict=True)]
        found = torch.autograd.grad(self.gradients, self.weights, shaped, retain_graph=True)
        return torch.cat([part.flatten() for part in found])

    def _matvec(self, x: np.ndarray) -> np.ndarray:
        return self.product(torch.from_numpy(np.ascontiguousarray(x).reshape(-1))).numpy()


def top_eigenvalues(hessian: Hessian, k: int, seed: int) -> list[float]:
    """Returns the ``k`` largest eigenvalues, descending, to ``TOLERANCE`` (Lanczos).

    Raises:
        scipy.sparse.linalg.ArpackNoConvergence: they were not found in 10 n products.
    """
    n = hessian.shape[0]
    start = np.random.default_rng(seed).standard_normal(n).astype(hessian.dtype)
    basis = min(n, 4 * k)
    found = eigsh(
        hessian, k, which="LA", v0=start, ncv=basis, tol=TOLERANCE, return_eigenvectors=False
    )
    return sorted((float(value) for value in found), reverse=True)


def trace(hessian: Hessian, probes: int, seed: int) -> tuple[float, float]:
    """Returns Hutchinson's estimate of the trace and its standard error.

    The mean of v^T H v over ``probes`` vectors v of random signs.
    """
    generator = torch.Generator().manual_seed(seed)
    dtype = hessian.gradients[0].dtype
    values = []
    for _ in range(probes):
        signs = torch.randint(0, 2, (hessian.shape[0],), generator=generator).to(dtype) * 2 - 1
        values.append((signs @ hessian.product(signs)).item())
    found = torch.tensor(values, dtype=torch.float64)
    return found.mean().item(), (found.std() / math.sqrt(probes)).item()

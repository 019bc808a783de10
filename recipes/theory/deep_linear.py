"""Deep linear networks: the task's loss, an alignment at block k, and their Hessians, exact.

A network is its blocks W_1..W_L, [..., L, d, d], and computes x -> W_L ... W_1 x. Inputs are
whitened (E[x x^T] = I), so that every expectation over them is a Frobenius norm. Nothing is drawn
or logged here.
"""

import torch


def product(blocks: torch.Tensor) -> torch.Tensor:
    """Returns W_l ... W_1, [..., d, d], of blocks [..., l, d, d]."""
    whole = blocks[..., 0, :, :]
    for index in range(1, blocks.shape[-3]):
        whole = blocks[..., index, :, :] @ whole
    return whole


def task_loss(blocks: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Returns E|W_L ... W_1 x - A x|^2 / 2, [...], for the target A, [..., d, d]."""
    return (product(blocks) - target).square().sum((-2, -1)) / 2


def alignment_loss(blocks: torch.Tensor, k: int, teacher: torch.Tensor) -> torch.Tensor:
    """Returns E|W_k ... W_1 x - T x|^2 / 2, [...]: block k against the teacher's T, [..., d, d]."""
    return task_loss(blocks[..., :k, :, :], teacher)


def hessian(blocks: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Returns the task loss's exact Hessian of one network, [L d d, L d d]."""

    def flat_loss(weights: torch.Tensor) -> torch.Tensor:
        return task_loss(weights.view(blocks.shape), target)

    return torch.func.hessian(flat_loss)(blocks.flatten())


def condition_number(blocks: torch.Tensor, target: torch.Tensor) -> float:
    """Returns the largest over the smallest of the Hessian's d^2 largest magnitudes.

    At a minimum the Hessian's rank is d^2 at most: the other eigenvalues are the directions in
    which neighbouring blocks undo each other, along which nothing changes.
    """
    d = target.shape[-1]
    spectrum = torch.linalg.eigvalsh(hessian(blocks, target)).abs().sort(descending=True).values
    return (spectrum[0] / spectrum[d * d - 1]).item()


def minimum_with_map_in(k: int, depth: int, target: torch.Tensor) -> torch.Tensor:
    """Returns the minimum in which blocks 1..k share ``target`` evenly and the rest are identities.

    k = 1 is where an alignment of the first block with a perfect teacher leads; k = ``depth`` is
    the balanced minimum, where gradient descent on the task alone goes.

    Args:
        target: A, symmetric and positive definite, [d, d].

    Returns:
        Blocks, [depth, d, d].
    """
    values, vectors = torch.linalg.eigh(target)
    root = vectors @ torch.diag(values ** (1 / k)) @ vectors.T
    rest = torch.eye(len(target), dtype=target.dtype)
    return torch.stack([root] * k + [rest] * (depth - k))


def predicted_spectrum(k: int, depth: int, target: torch.Tensor) -> torch.Tensor:
    """Returns the Hessian's d^2 non-zero eigenvalues at ``minimum_with_map_in``, ascending.

    At a minimum the Hessian is J^T J, J the Jacobian of the product, and its non-zero eigenvalues
    are those of J J^T = sum_j (P_j P_j^T) x (Q_j^T Q_j), where P_j = W_L ... W_{j+1} and
    Q_j = W_{j-1} ... W_1. With the map in the first k blocks these commute, and for singular values
    s_a, s_b of A the eigenvalue is

        sum_{j <= k} s_a^{2 (k - j) / k} s_b^{2 (j - 1) / k}  +  (L - k) s_b^2.
    """
    values = torch.linalg.eigvalsh(target)
    out, into = values[:, None], values[None, :]
    total = (depth - k) * into.square() * torch.ones_like(out)
    for j in range(1, k + 1):
        total = total + out ** (2 * (k - j) / k) * into ** (2 * (j - 1) / k)
    return total.flatten().sort().values

"""Question 1: how well conditioned is the minimum to which an aligned block leads?

Prediction, for a target with singular values 1 .. s and the map held by the first k of L blocks:

    kappa(k) = L / ((L - k) s^2 + k s^{2 (k - 1) / k})

so kappa(1) <= L whatever the target, and kappa(L) = s^{-2 (L - 1) / L}. Gradient descent near the
minimum, at the best step size 2 / (smallest + largest eigenvalue), then shrinks the loss by
((kappa - 1) / (kappa + 1))^2 a step.
"""

from typing import Any

import torch

from theory.deep_linear import (
    condition_number,
    hessian,
    minimum_with_map_in,
    predicted_spectrum,
    task_loss,
)

PERTURBATION = 1e-5  # so small that the loss is its quadratic
STEPS = 400
FLOOR = 1e-26  # a loss below it is rounding


def at_minimum(k: int, depth: int, target: torch.Tensor, seed: int) -> dict[str, Any]:
    """Returns what the formula says of one minimum, and what the exact Hessian and descent say."""
    blocks = minimum_with_map_in(k, depth, target)
    predicted = predicted_spectrum(k, depth, target)
    found = torch.linalg.eigvalsh(hessian(blocks, target))[-len(predicted) :]
    smallest, largest = predicted[0].item(), predicted[-1].item()
    kappa = largest / smallest
    return {
        "depth": depth,
        "k": k,
        "kappa_predicted": kappa,
        "kappa_measured": condition_number(blocks, target),
        "spectrum_error": ((found - predicted).abs().max() / largest).item(),
        "rate_predicted": ((kappa - 1) / (kappa + 1)) ** 2,
        "rate_measured": descent_rate(blocks, target, 2 / (smallest + largest), seed),
    }


def descent_rate(blocks: torch.Tensor, target: torch.Tensor, lr: float, seed: int) -> float:
    """Returns the factor by which a step shrinks the loss, over the last half of a descent."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(blocks.shape, generator=generator, dtype=blocks.dtype)
    blocks = blocks + PERTURBATION * noise
    losses: list[float] = []
    while len(losses) < STEPS:
        gradient, loss = torch.func.grad_and_value(task_loss)(blocks, target)
        if loss < FLOOR:
            break
        losses.append(loss.item())
        blocks = blocks - lr * gradient
    half = len(losses) // 2
    return (losses[-1] / losses[half]) ** (1 / (len(losses) - 1 - half))

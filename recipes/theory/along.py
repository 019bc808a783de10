"""Question 2, step by step: loss, condition number and spectrum along descent, and its last rate.

Prediction: the condition number of an early alignment falls below that of the task alone while the
teacher is there and stays below; the loss comes down more slowly until the teacher leaves, and
faster afterwards. At the end a step shrinks the loss by the largest (1 - lr mu)^2 over the exact
Hessian's eigenvalues mu that are not flat.
"""

import statistics
from collections.abc import Sequence
from typing import Any

import torch

from theory.deep_linear import condition_number, hessian
from theory.descent import Arm, Setting, train

POINTS = 16
"""Steps at which the Hessian is taken, about evenly spaced on a logarithmic axis."""

SHOWN = (
    Arm("task alone"),
    Arm("early", "early"),
    Arm("early, constant", "early", schedule="constant"),
    Arm("late", "late"),
    Arm("early, random teacher", "early", "random"),
)


def looks(last: int) -> list[int]:
    """Returns the steps from 0 to ``last`` that are looked at, ``last`` among them."""
    found = torch.logspace(0, 1, POINTS, base=float(last + 1)) - 1
    return sorted({round(step) for step in found.tolist()})


def along(arm: Arm, setting: Setting, rate: float) -> dict[str, Any]:
    """Returns an arm's course at one learning rate: medians over the seeds, and its last rate.

    Returns:
        {"loss": [[step, relative loss]], "kappa": [[step, condition number]], "spectrum": the d^2
        largest magnitudes at the end, of the first seed, "rate_measured", "rate_predicted": factor
        a step of the loss, by seed; predicted None where a teacher still pulls}
    """
    losses, blocks = train(arm, setting, [rate])
    steps, target = looks(len(losses) - 1), setting.target()
    kept: dict[int, torch.Tensor] = {}
    train(arm, setting, [rate], lambda s, now: kept.update({s: now[:, 0]} if s in steps else {}))
    relative = (losses / losses[0])[:, :, 0]
    return {
        "arm": arm.name,
        "depth": setting.depth,
        "spread": setting.spread,
        "rate": rate,
        "s_stop": setting.s_stop,
        "loss": [[s, relative[s].median().item()] for s in steps],
        "kappa": [
            [s, statistics.median(condition_number(seed, target) for seed in kept[s])]
            for s in steps
        ],
        "spectrum": spectrum(blocks[0, 0], target).tolist(),
        "rate_measured": last_factors(losses[:, :, 0]),
        "rate_predicted": None
        if arm.schedule == "constant"
        else [predicted_factor(seed[0], target, rate) for seed in blocks],
    }


def spectrum(blocks: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Returns the Hessian's d^2 largest eigenvalues by magnitude, descending in magnitude."""
    values = torch.linalg.eigvalsh(hessian(blocks, target))
    return values[values.abs().argsort(descending=True)][: target.numel()]


def predicted_factor(blocks: torch.Tensor, target: torch.Tensor, rate: float) -> float:
    """Returns max (1 - rate mu)^2: what a step does to the loss along its slowest direction."""
    return (1 - rate * spectrum(blocks, target)).square().max().item()


def last_factors(losses: torch.Tensor) -> list[float]:
    """Returns by what a step shrinks each seed's loss, [steps, seeds], over its last tenth."""
    begin = len(losses) - 1 - max(1, len(losses) // 10)
    factors = (losses[-1] / losses[begin]) ** (1 / (len(losses) - 1 - begin))
    return [float(factor) for factor in factors]


def courses(settings: Sequence[Setting], descent: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Returns ``along`` of the arms shown, at the rate that was best for the last level."""
    rates = {
        (row["arm"], row["depth"], row["spread"]): row["rate_for_1e-06"]
        for row in descent
        if row["start"] == "residual"
    }
    return [
        along(arm, setting, rates[arm.name, setting.depth, setting.spread])
        for setting in settings
        for arm in SHOWN
    ]

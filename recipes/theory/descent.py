"""Question 2: does an alignment steer gradient descent there, and does that save steps?

Predictions, for blocks that start near the identity: the task alone ends at the balanced minimum,
kappa(L); an alignment of the first block with a perfect teacher ends nearer to kappa(1) than one of
a middle or late block, and a constant one nearer than an annealed one; a noisy teacher helps less,
a random one harms. Steps are saved where kappa(L) is large and the loss asked for is small. Each
arm has its own best learning rate.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from let_titan.schedule import lambda_at
from theory.deep_linear import alignment_loss, condition_number, task_loss

LEARNING_RATES = (0.02, 0.05, 0.1, 0.2, 0.3, 0.5)
LEVELS = (1e-3, 1e-6)  # of the first loss
DONE = 1e-9  # of the first loss: nothing is learned from going on


@dataclass(frozen=True)
class Arm:
    """One way to train: which block is aligned (None: none), with which teacher, until when."""

    name: str
    block: str | None = None
    teacher: str = "perfect"
    schedule: str = "linear"


ARMS = (
    Arm("task alone"),
    Arm("early", "early"),
    Arm("early, constant", "early", schedule="constant"),
    Arm("middle", "middle"),
    Arm("late", "late"),
    Arm("early, noisy teacher", "early", "noisy"),
    Arm("early, teacher of half the rank", "early", "half"),
    Arm("early, random teacher", "early", "random"),
)


@dataclass(frozen=True)
class Setting:
    """What all arms share: ``spread`` is the target's condition number, ``noise`` the noisy
    teacher's error relative to the target's norm, ``start`` "residual" or "xavier"."""

    depth: int
    spread: float
    start: str = "residual"
    width: int = 6
    seeds: int = 5
    steps: int = 6000
    s_stop: int = 100
    lambda_0: float = 1.0
    noise: float = 0.2

    def target(self) -> torch.Tensor:
        """Returns A, [d, d]: symmetric, singular values from 1 down to 1 / spread."""
        return spread_target(self.width, self.spread)


def spread_target(width: int, spread: float) -> torch.Tensor:
    """Returns a symmetric matrix, [d, d], with singular values 1 .. 1 / ``spread``, log-spaced."""
    vectors = torch.linalg.qr(normal((width, width), seed=0)).Q
    values = torch.logspace(-math.log10(spread), 0, width, dtype=torch.float64)
    return vectors @ torch.diag(values) @ vectors.T


def normal(shape: tuple[int, ...], seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def block_of(arm: Arm, depth: int) -> int:
    """Returns the aligned block, from 1."""
    return {"early": 1, "middle": depth // 2, "late": depth - 1, None: 1}[arm.block]


def teacher_of(arm: Arm, setting: Setting) -> torch.Tensor:
    """Returns the teacher's map T, [d, d]."""
    target = setting.target()
    noise = normal((setting.width, setting.width), seed=99)
    noise = noise * target.norm() / noise.norm()
    values, vectors = torch.linalg.eigh(target)
    values[: len(values) // 2] = 0.0  # a small teacher learns the large directions first
    half = vectors @ torch.diag(values) @ vectors.T
    return {
        "perfect": target,
        "noisy": target + setting.noise * noise,
        "half": half,
        "random": noise,
    }[arm.teacher]


def first_blocks(setting: Setting) -> torch.Tensor:
    """Returns [seeds, L, d, d]: identities with noise (as residual blocks), or Xavier's normal."""
    d = setting.width
    noise = torch.stack([normal((setting.depth, d, d), seed) for seed in range(setting.seeds)])
    if setting.start == "residual":
        return torch.eye(d, dtype=torch.float64) + 0.02 * noise
    return noise / math.sqrt(d)


def lambda_of(arm: Arm, setting: Setting, s: int) -> float:
    if arm.block is None:
        return 0.0
    s_stop = setting.steps + 1 if arm.schedule == "constant" else setting.s_stop
    return lambda_at(s, setting.lambda_0, s_stop, arm.schedule)


def train(
    arm: Arm,
    setting: Setting,
    rates: Sequence[float] = LEARNING_RATES,
    see: Callable[[int, torch.Tensor], None] = lambda s, blocks: None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Descends for every seed and learning rate at once.

    Args:
        arm, setting: what is trained.
        rates: the learning rates.
        see: is shown the step and the blocks, [seeds, rates, L, d, d], before each step.

    Returns:
        (losses [steps done + 1, seeds, rates], last blocks [seeds, rates, L, d, d]); inf where it
        diverged.
    """
    k, teacher, target = block_of(arm, setting.depth), teacher_of(arm, setting), setting.target()
    sizes = torch.tensor(rates, dtype=torch.float64)[:, None, None, None]
    blocks = first_blocks(setting)[:, None].repeat(1, len(rates), 1, 1, 1)
    losses: list[torch.Tensor] = []
    for s in range(setting.steps + 1):
        see(s, blocks.detach())
        blocks = blocks.detach().requires_grad_()
        loss = task_loss(blocks, target)
        losses.append(loss.detach())
        weight = lambda_of(arm, setting, s)
        if weight == 0 and bool((~(loss > DONE * losses[0])).all()):
            break  # all are done, or have diverged to NaN
        total = loss.sum()
        if weight > 0:
            total = total + weight * alignment_loss(blocks, k, teacher).sum()
        (gradient,) = torch.autograd.grad(total, blocks)
        blocks = blocks.detach() - sizes * gradient
    whole = torch.stack(losses)
    return whole.nan_to_num(nan=math.inf, posinf=math.inf), blocks.detach()


def steps_to(level: float, losses: torch.Tensor) -> torch.Tensor:
    """Returns the first step at or below ``level`` x the first loss, [seeds, rates]; or inf."""
    reached = losses <= level * losses[0]
    first = reached.to(torch.float64).argmax(0).to(torch.float64)
    return torch.where(reached.any(0), first, math.inf)


def outcome(arm: Arm, setting: Setting) -> dict[str, Any]:
    """Returns an arm's steps to each level at its best rate, and the conditioning of its end.

    That is of the last level's best rate: of the smallest where none comes to the level.
    """
    losses, blocks = train(arm, setting)
    result: dict[str, Any] = {
        "arm": arm.name,
        "depth": setting.depth,
        "spread": setting.spread,
        "start": setting.start,
        "block": None if arm.block is None else block_of(arm, setting.depth),
    }
    for level in LEVELS:
        steps = steps_to(level, losses)
        best = int(steps.median(0).values.argmin())
        result[f"steps_to_{level:g}"] = [finite(value) for value in steps[:, best].tolist()]
        result[f"rate_for_{level:g}"] = LEARNING_RATES[best]
    result["kappa"] = [
        condition_number(blocks[seed, best], setting.target())
        if torch.isfinite(losses[-1, seed, best])
        else None
        for seed in range(setting.seeds)
    ]
    return result


def finite(value: float) -> int | None:
    """JSON has no infinity: None says "not reached"."""
    return int(value) if math.isfinite(value) else None

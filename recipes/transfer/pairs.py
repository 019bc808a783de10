"""Which students are compared: at equal steps of pretraining, and at equal validation loss."""

from collections.abc import Iterable
from dataclasses import dataclass

from transfer.runs import Start

Curve = list[tuple[int, float]]
"""(step, validation loss in nats per token)."""

STEPS, LOSS = "equal steps", "equal loss"


@dataclass(frozen=True)
class Pair:
    """A baseline's student and LET's of one seed, and in what they are equal."""

    equal: str
    baseline: Start
    let: Start


def pairs_of(seed: int, baseline: Curve, let: Curve, saved: Iterable[int]) -> list[Pair]:
    """Returns the seed's two pairs.

    Args:
        seed: of both runs.
        baseline, let: their curves; both end at the same step.
        saved: steps of which both have a checkpoint and a validation.

    Returns:
        The last checkpoints of both; and, of the run that ends lower, that checkpoint whose loss is
        nearest to the other's last, beside the other's last.
    """
    last, ends = baseline[-1][0], (baseline[-1][1], let[-1][1])
    lower, goal = (dict(let), ends[0]) if ends[1] < ends[0] else (dict(baseline), ends[1])
    match = min(saved, key=lambda step: abs(lower[step] - goal))
    steps = (last, match) if ends[1] < ends[0] else (match, last)
    return [
        Pair(STEPS, Start("baseline", seed, last), Start("LET", seed, last)),
        Pair(LOSS, Start("baseline", seed, steps[0]), Start("LET", seed, steps[1])),
    ]


def steps_to(level: float, curve: Curve) -> float | None:
    """Returns the step at which ``curve`` first comes down to ``level``, on straight lines between
    its points; None where it never does."""
    before = curve[0]
    if before[1] <= level:
        return float(before[0])
    for now in curve[1:]:
        if now[1] <= level:
            share = (before[1] - level) / (before[1] - now[1])
            return before[0] + share * (now[0] - before[0])
        before = now
    return None

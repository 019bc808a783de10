"""What it took to reach a loss: baseline / run, so that more than 1 is faster."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from let_titan.compare.stats import Estimate, ratio
from let_titan.compare.trace import COSTS, Trace

LEVELS = 50  # of loss at which the curve is drawn; its kinks stand at the evaluations

Pairs = Sequence[tuple[Trace, Trace]]


@dataclass(frozen=True)
class Cost:
    """What a loss cost, over pairs of a run and its baseline.

    Attributes:
        baseline: mean over the baseline's runs; None where one did not reach it or had no count.
        run: mean over the arm's runs, likewise.
        speed_up: baseline / run with its interval; None unless both are known.
    """

    baseline: float | None
    run: float | None
    speed_up: Estimate | None


@dataclass(frozen=True)
class Level:
    """What it took to reach one loss.

    Attributes:
        loss: the level in nats per token; the mean where it differs by pair.
        reached: how many of the arm's runs reached it.
        n: pairs compared; one, where means of unpaired runs are.
        costs: by name, of ``COSTS``.
    """

    loss: float
    reached: int
    n: int
    costs: dict[str, Cost]

    @property
    def unseen(self) -> bool:
        """Whether all got there, one of them before it was evaluated twice: see ``at_goal``."""
        return self.reached == self.n and self.costs["steps"].speed_up is None


def at_level(pairs: Pairs, losses: Sequence[float]) -> Level:
    """Compares what each pair spent to reach its loss of ``losses``."""
    steps = [
        (run.reached(loss), baseline.reached(loss))
        for (run, baseline), loss in zip(pairs, losses, strict=True)
    ]
    return Level(
        loss=sum(losses) / len(losses),
        reached=sum(step is not None for step, _ in steps),
        n=len(pairs),
        costs={name: cost(name, pairs, steps) for name in COSTS},
    )


def at_goal(pairs: Pairs, losses: Sequence[float]) -> Level:
    """As ``at_level``, with no figure for a side whose first evaluation already met the goal.

    When it got there is not known: a figure would only say how often the run was evaluated.
    """
    level = at_level(pairs, losses)
    run, baseline = (
        any(met_first(both[side], loss) for both, loss in zip(pairs, losses, strict=True))
        for side in (0, 1)
    )
    if not (run or baseline):
        return level
    known = {
        name: Cost(None if baseline else cost.baseline, None if run else cost.run, None)
        for name, cost in level.costs.items()
    }
    return replace(level, costs=known)


def met_first(trace: Trace, loss: float) -> bool:
    """Whether the first evaluation had reached ``loss``."""
    return bool(trace.curve) and trace.curve[0][1] <= loss


def cost(name: str, pairs: Pairs, steps: Sequence[tuple[float | None, float | None]]) -> Cost:
    """Compares one count at the steps where the pairs reached a loss.

    A pair with a run that was not timed is left out of the times. Where a run, timed or not, did
    not reach the loss, no mean is given: it would be that of the lucky runs.
    """
    counted = [
        (both, at)
        for both, at in zip(pairs, steps, strict=True)
        if all(trace.spent[name] for trace in both)
    ]
    sides: list[list[float]] = []
    for side in (0, 1):
        found = [
            None if at[side] is None else both[side].cost(name, at[side])  # type: ignore[arg-type]
            for both, at in counted
        ]
        sides.append([value for value in found if value is not None])
    run, baseline = (
        math.fsum(values) / len(values)
        if values and len(values) == len(counted) and all(at[side] is not None for at in steps)
        else None
        for side, values in enumerate(sides)
    )
    if not run or not baseline or min(*sides[0], *sides[1]) <= 0:
        return Cost(baseline, run, None)
    return Cost(baseline, run, ratio([b / r for r, b in zip(*sides, strict=True)]))


def curve(pairs: Pairs) -> list[Level]:
    """Returns the speed-up at every level of loss that all baselines reached.

    It begins where every run has been evaluated once after step 0: the line from the untrained
    loss to there is too coarse to be read.
    """
    traces = [trace for both in pairs for trace in both]
    firsts = [next((loss for step, loss in trace.curve if step > 0), None) for trace in traces]
    low = max(baseline.best() for _, baseline in pairs)
    if any(first is None for first in firsts) or not math.isfinite(low):
        return []
    high = min(first for first in firsts if first is not None)
    if high <= low:
        return []
    losses = [high + (low - high) * i / (LEVELS - 1) for i in range(LEVELS - 1)] + [low]
    return [at_level(pairs, [loss] * len(pairs)) for loss in losses]

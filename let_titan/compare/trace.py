"""What a run had reached and spent, step by step.

Between two evaluations the best loss so far (the monotone envelope) is a straight line, and so is
every count of what was spent: nothing is extrapolated.
"""

import math
import statistics
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from let_titan.runs import Line, Run, is_number

Point = tuple[int, float]

COUNTS = {
    "tokens": ("tokens",),
    "flops": ("student_flops", "teacher_flops"),
    "seconds": ("elapsed_s",),
}
"""What is counted from the start of a run, and the keys of a train line that are its sum."""

TIMES = ("seconds", "device_hours")
COSTS = ("steps", *COUNTS, "device_hours")


@dataclass(frozen=True)
class Trace:
    """One run, or the mean of several.

    Attributes:
        curve: (step, validation loss in nats per token), finite, by step.
        spent: for each of ``COSTS`` (step, count so far); empty where it could not be measured.
    """

    curve: list[Point]
    spent: dict[str, list[Point]]

    @classmethod
    def of(cls, run: Run, timed: bool = True) -> "Trace":
        """Reads ``run``; with ``timed=False`` its clock counts for nothing."""
        last = max(run.train[-1]["step"], run.validation[-1]["step"])
        spent: dict[str, list[Point]] = {"steps": [(0, 0.0), (last, float(last))]}
        spent |= {name: count(run.train, keys) for name, keys in COUNTS.items()}
        if not timed:
            spent["seconds"] = []
        spent["device_hours"] = device_hours(run, spent["seconds"])
        return cls([point for point in run.curve if is_number(point[1])], spent)

    def at(self, steps: Collection[int]) -> "Trace":
        """Returns it with the evaluations at ``steps``, and those that come after all of them.

        A convex curve is reached later on a coarse grid than on a fine one: two traces are
        compared on the steps that both have.
        """
        last = max(steps)
        return replace(self, curve=[p for p in self.curve if p[0] in steps or p[0] > last])

    @classmethod
    def mean(cls, traces: Sequence["Trace"]) -> "Trace":
        """Averages over the steps that all ``traces`` have."""
        spent = {name: mean_points([trace.spent[name] for trace in traces]) for name in COSTS}
        last = min(trace.spent["steps"][-1][0] for trace in traces)
        spent["steps"] = [(0, 0.0), (last, float(last))]
        return cls(mean_points([trace.curve for trace in traces]), spent)

    def reached(self, level: float) -> float | None:
        """Returns the step at which the best loss so far reaches ``level``, or None."""
        return crossing_step(self.curve, level)

    def cost(self, name: str, step: float) -> float | None:
        """Interpolates what was spent by ``step``; None past the last count or without any."""
        for before, after in pairwise(self.spent[name]):
            if step <= after[0]:
                share = (step - before[0]) / (after[0] - before[0])
                return before[1] + (after[1] - before[1]) * share
        return None

    def best(self) -> float:
        """Returns the lowest loss of the curve; infinite without one."""
        return min((loss for _, loss in self.curve), default=math.inf)


def count(train: Sequence[Line], keys: Sequence[str]) -> list[Point]:
    """Returns (step, sum of ``keys``) from (0, 0) on, over the lines that hold numbers.

    Empty where a count falls (a clock that a resumed run set to 0), since it measures nothing.
    """
    points = [(0, 0.0)]
    for line in train:
        values = [value for key in keys if is_number(value := line.get(key))]
        if len(values) == len(keys):
            points.append((line["step"], float(sum(values))))
    if any(after[1] < before[1] for before, after in pairwise(points)):
        return []
    return points


def device_hours(run: Run, seconds: Sequence[Point]) -> list[Point]:
    """Returns (step, hours x devices) so far, with the devices that each stretch ran on."""
    points = list(seconds[:1])
    for (_, earlier), (step, later) in pairwise(seconds):
        hours = points[-1][1] + (later - earlier) * run.devices(step) / 3600
        points.append((step, hours))
    return points


def mean_points(series: Sequence[list[Point]]) -> list[Point]:
    """Averages series where all of them have a point."""
    common = set.intersection(*({step for step, _ in points} for points in series))
    by_step = [dict(points) for points in series]
    return [(step, statistics.fmean(values[step] for values in by_step)) for step in sorted(common)]


def crossing_step(points: Sequence[Point], level: float) -> float | None:
    """Returns where the best loss so far reaches ``level``, or None.

    A noisy curve that goes up again neither delays nor repeats the crossing.
    """
    before: Point | None = None
    for step, loss in points:
        if not math.isfinite(loss):
            continue
        if loss <= level:
            if before is None:
                return float(step)
            return before[0] + (step - before[0]) * (before[1] - level) / (before[1] - loss)
        before = (step, loss if before is None else min(loss, before[1]))
    return None

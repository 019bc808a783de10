"""Throughput and memory with the teacher, after it, and over the run."""

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from let_titan.compare.stats import Estimate, mean, ratio
from let_titan.outcome import phase_cost, steady
from let_titan.runs import Line, Run, is_number

FIGURES = ("tokens_per_s", "peak_memory_gib")

PHASES: dict[str, Callable[[Line], bool]] = {
    "with the teacher": lambda line: line["teacher_active"],
    "after the teacher": lambda line: not line["teacher_active"],
    "whole run": lambda line: True,
}


@dataclass(frozen=True)
class Figure:
    """A figure of one phase: its mean over the runs, and run / baseline's whole run."""

    mean: Estimate
    to_baseline: Estimate | None


def phase(run: Run, name: str) -> dict[str, float] | None:
    """Returns a run's ``FIGURES`` in one of ``PHASES``, without the first window of each start."""
    return phase_cost(
        line
        for line in steady(run.train, run.starts)
        if PHASES[name](line) and is_number(line["tokens_per_s"]) and is_number(line["memory_gib"])
    )


def phases(
    runs: Sequence[Run], baseline: Sequence[Run], paired: bool
) -> dict[str, dict[str, Figure]]:
    """Returns {phase: {figure: ...}} of the phases that all ``runs`` have.

    Args:
        runs: an arm's runs that were timed.
        baseline: the baseline's; in the same order where ``paired``.
        paired: whether ratios are taken seed by seed, or of the means.
    """
    found = {name: [phase(run, name) for run in runs] for name in PHASES}
    whole = [cost for run in baseline if (cost := phase(run, "whole run")) is not None]
    result = {}
    for name, costs in found.items():
        known = [cost for cost in costs if cost is not None]
        if known and len(known) == len(runs) and len(whole) == len(baseline):
            result[name] = {key: figure(known, whole, key, paired) for key in FIGURES}
    return result


def figure(
    costs: Sequence[dict[str, float]], whole: Sequence[dict[str, float]], key: str, paired: bool
) -> Figure:
    ours, theirs = [cost[key] for cost in costs], [cost[key] for cost in whole]
    if not theirs:
        return Figure(mean(ours), None)
    if not paired:
        return Figure(mean(ours), ratio([statistics.fmean(ours) / statistics.fmean(theirs)]))
    return Figure(mean(ours), ratio([a / b for a, b in zip(ours, theirs, strict=True)]))

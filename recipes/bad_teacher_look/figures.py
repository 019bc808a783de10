"""What LET's diagnostics show of each teacher, held against what they show of the good one."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from let_titan.compare.stats import Estimate, mean, paired_difference
from let_titan.probe.proposal import evidence_of
from let_titan.probe.trials import Trial

GOOD = "good"
FIGURES = {
    "cosine_last": "cosine to the teacher, last",
    "grad_cosine": "cosine of the two gradients, mean",
    "grad_ratio": "ratio of their norms, median",
    "loss_gain": "gain on no teacher, nats a token",
}
"""Fields of ``Evidence`` that a user could read a teacher's worth from."""

WORSE_IF = {"cosine_last": -1, "grad_cosine": -1, "loss_gain": -1}
"""The side on which a figure says "worse"; the ratio of the norms has none."""

Trials = Mapping[str, Sequence[Trial]]
"""{teacher: a trial a seed}."""


def figures_of(
    trials: Trials, baselines: Sequence[Trial], threshold: float, gain: float
) -> dict[str, dict[str, Any]]:
    """Returns {teacher: {figure: its mean and its paired difference to the good teacher's}}.

    Args:
        trials: the good teacher's among them, all over the same seeds.
        baselines: the runs without a teacher, a seed each.
        threshold, gain: auto stop's (let.auto_stop_cosine, let.auto_stop_gain).
    """
    evidence = {
        teacher: [
            evidence_of(trial, baseline, threshold, gain)
            for trial, baseline in zip(seeds, baselines, strict=True)
        ]
        for teacher, seeds in trials.items()
    }
    found: dict[str, dict[str, Any]] = {}
    for teacher, seeds in evidence.items():
        row: dict[str, Any] = {"auto_stop": [seed.stop for seed in seeds]}
        for figure in FIGURES:
            values = [getattr(seed, figure) for seed in seeds]
            row[figure] = {"values": values, "mean": asdict(mean(values))}
            if teacher != GOOD:
                good = [getattr(seed, figure) for seed in evidence[GOOD]]
                difference = paired_difference(values, good)
                row[figure] |= {
                    "difference": asdict(difference),
                    "says": says(figure, difference),
                }
        found[teacher] = row
    return found


def says(figure: str, difference: Estimate) -> str:
    """Puts a difference to the good teacher's figure in a word."""
    if not difference.excludes(0):
        return "nothing"
    if figure not in WORSE_IF:
        return "differs"
    return "worse" if difference.value * WORSE_IF[figure] > 0 else "better"

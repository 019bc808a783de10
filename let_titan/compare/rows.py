"""Both sides of a comparison at one step, with the interval of their difference."""

from collections.abc import Sequence
from dataclasses import dataclass

from let_titan.compare.stats import Estimate, mean, paired_difference, welch_difference


@dataclass(frozen=True)
class Row:
    """One measure of both sides at a step: means, and run - baseline with its interval."""

    step: int
    baseline: Estimate
    run: Estimate
    difference: Estimate


def rows_of(
    ours: Sequence[dict[int, float]], theirs: Sequence[dict[int, float]], *, paired: bool
) -> list[Row]:
    """Returns a row for every step that all of both sides have.

    Args:
        ours: {step: value} of each of the arm's runs.
        theirs: of the baseline's; in the same order where ``paired``.
        paired: whether the difference is taken seed by seed.
    """
    difference = paired_difference if paired else welch_difference
    rows = []
    for step in sorted(set.intersection(*(set(curve) for curve in (*ours, *theirs)))):
        run, baseline = ([curve[step] for curve in side] for side in (ours, theirs))
        rows.append(Row(step, mean(baseline), mean(run), difference(run, baseline)))
    return rows

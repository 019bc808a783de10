"""95 % confidence intervals over seeds, by Student's t."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace

from scipy import stats

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Estimate:
    """A mean over ``n`` runs with its interval.

    Attributes:
        value: the mean; of ratios, the geometric mean; NaN where a run diverged.
        low: lower end of the interval; None with fewer than two runs, or where one diverged.
        high: upper end.
        n: the number of runs, or of pairs of runs.
        test: the name of the procedure; "" where there is no interval.
    """

    value: float
    low: float | None
    high: float | None
    n: int
    test: str

    def excludes(self, null: float) -> bool:
        """Whether the interval lies on one side of ``null``."""
        return self.low is not None and self.high is not None and not self.low <= null <= self.high


def mean(values: Sequence[float], test: str = "one-sample t") -> Estimate:
    """Returns the mean of ``values`` with its t interval."""
    n = len(values)
    if not all(map(math.isfinite, values)):
        return Estimate(math.nan, None, None, n, "")
    center = statistics.fmean(values)
    if n < 2:
        return Estimate(center, None, None, n, "")
    half = stats.t.ppf((1 + CONFIDENCE) / 2, n - 1) * statistics.stdev(values) / math.sqrt(n)
    return Estimate(center, center - float(half), center + float(half), n, test)


def paired_difference(run: Sequence[float], baseline: Sequence[float]) -> Estimate:
    """Returns the mean of ``run - baseline`` over pairs (paired t)."""
    return mean([a - b for a, b in zip(run, baseline, strict=True)], "paired t")


def welch_difference(run: Sequence[float], baseline: Sequence[float]) -> Estimate:
    """Returns the difference of two means of unpaired runs (Welch's t, unequal variances)."""
    n = min(len(run), len(baseline))
    if not all(map(math.isfinite, (*run, *baseline))):
        return Estimate(math.nan, None, None, n, "")
    by = statistics.fmean(run) - statistics.fmean(baseline)
    if n < 2:
        return Estimate(by, None, None, n, "")
    if statistics.stdev(run) == statistics.stdev(baseline) == 0:  # no freedom to estimate
        return Estimate(by, by, by, n, "Welch's t")
    found = stats.ttest_ind(run, baseline, equal_var=False).confidence_interval(CONFIDENCE)
    return Estimate(by, float(found.low), float(found.high), n, "Welch's t")


def ratio(values: Sequence[float]) -> Estimate:
    """Returns the geometric mean of positive ``values``, one a pair (paired t on logarithms)."""
    logs = mean([math.log(value) for value in values], "paired t on logarithms")
    if logs.low is None or logs.high is None:
        return replace(logs, value=math.exp(logs.value))
    return replace(
        logs, value=math.exp(logs.value), low=math.exp(logs.low), high=math.exp(logs.high)
    )

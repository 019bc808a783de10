"""Whether a value that the probe proposes ends where the best of the whole runs ends."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from scipy import stats

from probe_check.whole_runs import Ends, Noise

HOLDS, WRONG, OPEN = "holds", "wrong", "cannot be decided"


@dataclass(frozen=True)
class Verdict:
    """One rule of the probe against whole runs.

    Attributes:
        setting: "k", "lambda_0" or "s_stop".
        proposed: its value; None of s_stop: later than the probe went.
        stands_for: the arms that are nearest to it.
        best: the arm that ended lowest.
        regret: by how much the better of ``stands_for`` ended above ``best``, nats per token.
        told_apart: the difference of two arms that seeds do not make (95 %).
        spread: best to worst arm.
        spread_of_equals: how far equal arms may lie apart (95 %).
        outcome: HOLDS, WRONG or OPEN.
    """

    setting: str
    proposed: float | None
    stands_for: tuple[float, ...]
    best: float
    regret: float
    told_apart: float
    spread: float
    spread_of_equals: float
    outcome: str


def nearest(value: float, arms: Mapping[float, float]) -> tuple[float, ...]:
    """Returns the arm nearest to ``value`` in ratio."""
    return (min(arms, key=lambda arm: abs(math.log(arm / value))),)


def at_least(value: float, arms: Mapping[float, float]) -> tuple[float, ...]:
    """Returns the arms from ``value`` on: of a stop that the probe did not come to."""
    return tuple(arm for arm in sorted(arms) if arm >= value)


def judge(
    setting: str, proposed: float | None, stands_for: tuple[float, ...], ends: Ends, noise: Noise
) -> Verdict:
    """Judges as ``check_probe.METRIC`` has it."""
    found = ends.differences
    best = min(found, key=lambda arm: found[arm])
    regret = min(found[arm] for arm in stands_for) - found[best]
    told_apart = noise.of_two(ends.seeds)
    spread = max(found.values()) - found[best]
    of_equals = noise.of_all(len(found), ends.seeds)
    outcome = WRONG if regret > told_apart else HOLDS if spread > of_equals else OPEN
    return Verdict(
        setting, proposed, stands_for, best, regret, told_apart, spread, of_equals, outcome
    )


def rank_correlations(evidence: list[dict[str, Any]], ends: Ends) -> dict[str, float]:
    """Returns Spearman's rho over blocks of each figure of the probe with how whole runs ended.

    Below zero: the higher the figure, the lower the whole run's loss.
    """
    rows = [row for row in evidence if row["block"] in ends.differences]
    ended = [ends.differences[row["block"]] for row in rows]
    return {
        figure: float(stats.spearmanr([row[figure] for row in rows], ended).statistic)
        for figure in ("grad_cosine", "grad_ratio", "cosine_last", "loss_gain")
    }

"""What the runs say: paired differences on each set, and tests over sets.

Over sets as in Demšar (JMLR 2006): Friedman's test and Nemenyi's critical difference of mean ranks;
of each arm against the baseline Wilcoxon's signed-rank test, with Holm's correction.
"""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from let_titan.compare.speedup import Level, at_level
from let_titan.compare.stats import CONFIDENCE, Estimate, mean, paired_difference
from let_titan.compare.trace import COSTS, Trace
from series.study import Record, Study


@dataclass(frozen=True)
class ArmOnSet:
    """One arm of one student on one set; the pairs are of equal seeds.

    Attributes:
        accuracy: final, on test.
        difference: to the baseline's.
        level: steps to the final *error* of the baseline of the same seed (``Level.loss``).
        steps: the mean of these, where what was not reached counts as all of the steps.
        cpu_ms: of a step, the teacher's part included.
    """

    set: str
    arm: str
    accuracy: Estimate
    difference: Estimate
    level: Level
    steps: float
    cpu_ms: float


@dataclass(frozen=True)
class OverSets:
    """One student over all sets that have every arm.

    Attributes:
        ranks: mean rank of each arm by its mean accuracy; 1 is best.
        friedman: p that all arms rank alike; None with fewer than three sets.
        critical_difference: of two mean ranks, Nemenyi's.
        accuracy, steps: Holm's p of each arm against the baseline.
    """

    n_sets: int
    ranks: dict[str, float]
    friedman: float | None
    critical_difference: float
    accuracy: dict[str, float]
    steps: dict[str, float]


@dataclass(frozen=True)
class Findings:
    """Attributes:
    teachers: final test accuracy by set.
    teacher_cpu_s: of the training of one, the mean.
    arms: of each student, sets in the study's order, the baseline first on each.
    over_sets: of each student.
    """

    teachers: dict[str, Estimate]
    teacher_cpu_s: float
    arms: dict[str, list[ArmOnSet]]
    over_sets: dict[str, OverSets]


def find(study: Study, records: Sequence[Record]) -> Findings:
    """Compares what is there: on each set the seeds that every arm of a student has."""
    of_teachers = [record for record in records if record["purpose"] == "teacher"]
    ends = {name: [final(r) for r in of_teachers if r["set"] == name] for name in study.sets}
    teachers = {name: mean(accuracies) for name, accuracies in ends.items() if accuracies}
    cpu_s = statistics.fmean(record["cpu_s"] for record in of_teachers)
    arms = {student: on_sets(study, records, student) for student in study.students}
    over = {name: over_sets(study, found) for name, found in arms.items()}
    return Findings(teachers, cpu_s, arms, over)


def final(record: Record) -> float:
    return float(record["curve"][-1][1])


def on_sets(study: Study, records: Sequence[Record], student: str) -> list[ArmOnSet]:
    """Returns every arm of ``student`` on every set for which all arms have a common seed."""
    found = []
    for name in study.sets:
        by_arm = {
            arm.name: {
                r["seed"]: r
                for r in records
                if (r.get("student"), r["set"], r.get("arm")) == (student, name, arm.name)
            }
            for arm in study.arms
        }
        seeds = sorted(set.intersection(*(set(runs) for runs in by_arm.values())))
        if seeds:
            baseline = [by_arm[study.arms[0].name][seed] for seed in seeds]
            found += [
                on_set(name, arm, [runs[seed] for seed in seeds], baseline)
                for arm, runs in by_arm.items()
            ]
    return found


def on_set(name: str, arm: str, runs: Sequence[Record], baseline: Sequence[Record]) -> ArmOnSet:
    ours, theirs = ([final(run) for run in side] for side in (runs, baseline))
    pairs = [(trace(run), trace(base)) for run, base in zip(runs, baseline, strict=True)]
    errors = [1 - accuracy for accuracy in theirs]
    last = runs[0]["curve"][-1][0]
    reached = [run.reached(error) for (run, _), error in zip(pairs, errors, strict=True)]
    return ArmOnSet(
        name,
        arm,
        mean(ours),
        paired_difference(ours, theirs),
        at_level(pairs, errors),
        statistics.fmean(last if step is None else step for step in reached),
        1000 * statistics.fmean(run["cpu_s"] for run in runs) / last,
    )


def trace(record: Record) -> Trace:
    """Returns the run's test *error* by step: compare finds where it first falls to a level."""
    last = record["curve"][-1][0]
    spent = {cost: [(0, 0.0), (last, float(last))] if cost == "steps" else [] for cost in COSTS}
    return Trace([(step, 1 - accuracy) for step, accuracy, _ in record["curve"]], spent)


def over_sets(study: Study, found: Sequence[ArmOnSet]) -> OverSets:
    """Ranks the arms by their mean accuracies on each set, and tests them against the baseline."""
    names = [arm.name for arm in study.arms]
    by_arm = {name: [row for row in found if row.arm == name] for name in names}
    accuracies = np.array([[row.accuracy.value for row in by_arm[name]] for name in names])
    n_sets = accuracies.shape[1]
    ranks = stats.rankdata(-accuracies, axis=0).mean(1) if n_sets else np.full(len(names), math.nan)
    alike = n_sets < 3 or np.ptp(accuracies, axis=0).max() == 0
    others = names[1:]
    return OverSets(
        n_sets,
        dict(zip(names, ranks.tolist(), strict=True)),
        None if alike else float(stats.friedmanchisquare(*accuracies).pvalue),
        critical_difference(len(names), n_sets),
        holm(
            {name: signed_rank([row.difference.value for row in by_arm[name]]) for name in others}
        ),
        holm(
            {
                name: signed_rank(
                    [a.steps - b.steps for a, b in zip(by_arm[name], by_arm[names[0]], strict=True)]
                )
                for name in others
            }
        ),
    )


def critical_difference(n_arms: int, n_sets: int) -> float:
    """Returns what two mean ranks must differ by (Nemenyi); infinite without a set."""
    if n_sets == 0:
        return math.inf
    q = stats.studentized_range.ppf(CONFIDENCE, n_arms, np.inf) / math.sqrt(2)
    return float(q * math.sqrt(n_arms * (n_arms + 1) / (6 * n_sets)))


def signed_rank(differences: Sequence[float]) -> float:
    """Returns Wilcoxon's two-sided p over all signs, exact with ties, too; 1 if nothing differs."""
    rounded = [round(difference, 9) for difference in differences]
    kept = [difference for difference in rounded if difference != 0]
    signs = stats.PermutationMethod()  # all 2^n of them, up to 13 sets; one set alone has p = 1
    return float(stats.wilcoxon(kept, method=signs).pvalue) if len(kept) > 1 else 1.0


def holm(p_values: dict[str, float]) -> dict[str, float]:
    """Returns p-values corrected for their number (Holm, 1979)."""
    corrected, highest = {}, 0.0
    for rank, name in enumerate(sorted(p_values, key=lambda name: p_values[name])):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[name]))
        corrected[name] = highest
    return {name: corrected[name] for name in p_values}

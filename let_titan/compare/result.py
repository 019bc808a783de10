"""Everything that a comparison says, as plain data: JSON, Markdown, page and plots show it."""

import dataclasses
import json
import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from let_titan.compare.arms import Arm, baseline_arm, group, pair, refuse_doubles
from let_titan.compare.caveats import caveats
from let_titan.compare.phases import Figure, phases
from let_titan.compare.rows import Row, rows_of
from let_titan.compare.scores import Score, accuracy_target, average_rows, compare_scores
from let_titan.compare.speedup import Level, at_goal, curve
from let_titan.compare.trace import Trace
from let_titan.compare.twins import config_table, refuse_unlike, unintended, untimed_because
from let_titan.runs import Run


@dataclass(frozen=True)
class ArmResult:
    """One arm against the baseline.

    Attributes:
        seeds: the arm's.
        paired: whether every seed has its partner in the baseline.
        rows: losses wherever all runs of both sides were evaluated.
        diverged: how many runs of (the arm, the baseline) were not finite in the last row's step.
        is_end: whether the last row is the end of all runs.
        target: what it took to reach the baseline's loss of the last row; None where runs diverged.
        curve: what it took to reach each level of loss.
        scores: task accuracies and perplexities of the checkpoints, if they were evaluated.
        averages: the tasks' average accuracy wherever all runs have it.
        accuracy: what it took to reach the baseline's average of its last row; the level's loss is
            the error, 1 - accuracy.
        phases: throughput and memory, by phase.
        untimed: why times are not compared; None where they are.
        caveats: sentences without which the verdict would mislead.
    """

    name: str
    seeds: list[Any]
    paired: bool
    rows: list[Row]
    diverged: tuple[int, int]
    is_end: bool
    target: Level | None
    curve: list[Level]
    scores: list[Score]
    averages: list[Row]
    accuracy: Level | None
    phases: dict[str, dict[str, Figure]]
    untimed: str | None
    caveats: list[str]


@dataclass(frozen=True)
class Comparison:
    """A baseline, the arms beside it and what was found.

    Attributes:
        baseline_phases: the baseline's own throughput and memory.
        settings: (key, values of the baseline and the arms) that differ.
        unintended: what differs outside of [let] and [teacher].
        allowed: differences that would have been refused.
        untimed: ``id`` of the runs whose clock does not count.
    """

    baseline: Arm
    arms: list[Arm]
    results: list[ArmResult]
    baseline_phases: dict[str, dict[str, Figure]]
    settings: list[tuple[str, list[Any]]]
    unintended: list[str]
    allowed: list[str]
    untimed: Collection[int]

    @property
    def timed(self) -> bool:
        """Whether there is an arm whose throughput and memory can be compared."""
        return any(result.phases for result in self.results)

    @property
    def scored(self) -> bool:
        """Whether every arm has averages of the tasks: they stand in one chart."""
        return all(result.averages for result in self.results)

    def to_json(self) -> str:
        """Returns the figures as JSON; what is not finite becomes null."""
        names = [self.baseline.name, *(arm.name for arm in self.arms)]
        tree = {
            "baseline": {
                "runs": [run.name for run in self.baseline.runs],
                "seeds": self.baseline.seeds,
                "phases": as_tree(self.baseline_phases),
            },
            "arms": [arm_tree(result) for result in self.results],
            "settings": {key: dict(zip(names, v, strict=True)) for key, v in self.settings},
            "unintended_differences": self.unintended,
            "allowed_differences": self.allowed,
        }
        return json.dumps(tree, indent=2, allow_nan=False, default=str) + "\n"


def compare(
    runs: Sequence[Run],
    baseline: Sequence[Run],
    allowed: Collection[str] = (),
    untimed: Collection[int] = (),
) -> Comparison:
    """Compares ``runs``, sorted into arms, with ``baseline``.

    Args:
        runs: of one or more arms, with any number of seeds.
        baseline: of one setting.
        allowed: differences that are let pass, of ``twins.OVERRIDES``.
        untimed: ``id`` of runs whose clock does not count.

    Raises:
        ValueError: the runs cannot be compared; the message names why and the cure.
    """
    base, arms = baseline_arm(baseline), group(runs)
    passed = refuse_unlike([*baseline, *runs], allowed)
    everything = [base, *arms]
    for arm in everything:
        refuse_doubles(arm)
    timed = [run for run in baseline if id(run) not in untimed]
    return Comparison(
        base,
        arms,
        [compare_arm(arm, base, allowed, untimed) for arm in arms],
        phases(timed, timed, paired=False),
        config_table(everything),
        unintended(everything),
        passed,
        untimed,
    )


def compare_arm(
    arm: Arm, baseline: Arm, allowed: Collection[str], untimed: Collection[int]
) -> ArmResult:
    """Compares one arm with the baseline."""
    reason = untimed_because([*baseline.runs, *arm.runs], allowed)
    pairs = pair(arm, baseline)
    paired = pairs is not None
    ours, theirs = zip(*pairs, strict=True) if pairs else (arm.runs, baseline.runs)
    rows = losses(ours, theirs, paired)
    last, common = rows[-1].step, {row.step for row in rows}
    traces = [
        [Trace.of(run, reason is None and id(run) not in untimed).at(common) for run in side]
        for side in (ours, theirs)
    ]
    if paired:
        matched = list(zip(*traces, strict=True))
        targets = [dict(run.curve)[last] for run in theirs]
    else:
        matched = [(Trace.mean(traces[0]), Trace.mean(traces[1]))]
        targets = [rows[-1].baseline.value]
    averages = average_rows(ours, theirs, paired)
    gone = (diverged(ours, last), diverged(theirs, last))
    return ArmResult(
        name=arm.name,
        seeds=arm.seeds,
        paired=paired,
        rows=rows,
        diverged=gone,
        is_end=all(run.curve[-1][0] == last for run in (*ours, *theirs)),
        target=None if any(gone) else at_goal(matched, targets),
        curve=curve(matched),
        scores=compare_scores(ours, theirs, paired),
        averages=averages,
        accuracy=accuracy_target(matched, ours, theirs, averages, paired),
        phases={} if reason else timed_phases(ours, theirs, paired, untimed),
        untimed=reason,
        caveats=caveats(ours, theirs),
    )


def losses(ours: Sequence[Run], theirs: Sequence[Run], paired: bool) -> list[Row]:
    """Returns the validation losses wherever all runs were evaluated.

    Raises:
        ValueError: there is no such step after step 0.
    """
    rows = rows_of(*([dict(run.curve) for run in side] for side in (ours, theirs)), paired=paired)
    if not rows or rows[-1].step == 0:
        raise ValueError(
            f"{', '.join(run.name for run in (*theirs, *ours))} were never evaluated at the same "
            "step after step 0: repeat them with one validation.freq."
        )
    return rows


def diverged(runs: Sequence[Run], step: int) -> int:
    return sum(not math.isfinite(dict(run.curve)[step]) for run in runs)


def timed_phases(
    ours: Sequence[Run], theirs: Sequence[Run], paired: bool, untimed: Collection[int]
) -> dict[str, dict[str, Figure]]:
    """Returns the phases of the runs whose clocks count; of pairs where both do."""
    if paired:
        both = [
            (run, base)
            for run, base in zip(ours, theirs, strict=True)
            if not {id(run), id(base)} & set(untimed)
        ]
        ours, theirs = [run for run, _ in both], [base for _, base in both]
    else:
        ours, theirs = ([r for r in side if id(r) not in untimed] for side in (ours, theirs))
    return phases(ours, theirs, paired)


def arm_tree(result: ArmResult) -> dict[str, Any]:
    """Returns an arm's figures; its caveats where there are any, as older reports have none."""
    tree: dict[str, Any] = as_tree(result)
    return {key: value for key, value in tree.items() if value or key != "caveats"}


def as_tree(value: Any) -> Any:
    """Returns dataclasses as dicts, and None for what is not finite."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: as_tree(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {key: as_tree(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [as_tree(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value

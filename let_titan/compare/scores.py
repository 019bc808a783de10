"""What checkpoints scored: task accuracy and perplexity, at steps that all runs have."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from let_titan.compare.measures import Key, disagreement, measures, scores_of, unlike_at
from let_titan.compare.rows import Row, rows_of
from let_titan.compare.speedup import Level, Pairs, at_goal
from let_titan.compare.trace import Trace
from let_titan.runs import Line, Run, is_number


@dataclass(frozen=True)
class Score:
    """One task or domain at the last step that it was measured at in all runs.

    Attributes:
        name: the task's or the domain's.
        metric: of the task, such as "acc_norm", higher is better; ``PERPLEXITY``, lower is better.
        row: both sides there.
    """

    name: str
    metric: str
    row: Row


def compare_scores(ours: Sequence[Run], theirs: Sequence[Run], paired: bool) -> list[Score]:
    """Compares every task and domain that all runs were evaluated on at one step, and alike."""
    found = []
    for key in keys_of(theirs[0]):
        rows = rows_of(*(values_of(side, key) for side in (ours, theirs)), paired=paired)
        alike = [row for row in rows if unlike_at([*theirs, *ours], key, row.step) is None]
        if alike:
            found.append(Score(*key, alike[-1]))
    return found


def left_out(runs: Sequence[Run]) -> dict[Key, tuple[int, str]]:
    """Returns {key: (step, term)} of what the runs' last common evaluations measured unlike."""
    found = {}
    for key in keys_of(runs[0]):
        steps = set.intersection(*(set(curve) for curve in values_of(runs, key)))
        if steps and (term := unlike_at(runs, key, max(steps))):
            found[key] = max(steps), term
    return found


def keys_of(run: Run) -> list[Key]:
    return list(dict.fromkeys(key for line in run.evaluations for key in scores_of(line)))


def values_of(side: Sequence[Run], key: Key) -> list[dict[int, float]]:
    return of_all(side, lambda line: scores_of(line).get(key))


def average_rows(ours: Sequence[Run], theirs: Sequence[Run], paired: bool) -> list[Row]:
    """Compares the tasks' average wherever all runs have it over the same tasks, measured alike.

    Those of the baseline's last evaluation: an average of others is another measure.
    """
    return rows_of(
        *(averages(side, last_average(theirs[0])) for side in (ours, theirs)), paired=paired
    )


def last_average(run: Run) -> Line:
    """Returns the last evaluation with an average; empty without one."""
    lines = [line for line in run.evaluations if is_number(line.get("average"))]
    return lines[-1] if lines else {}


def averages(side: Sequence[Run], wanted: Line) -> list[dict[int, float]]:
    return of_all(side, lambda line: line.get("average") if same_tasks(line, wanted) else None)


def same_tasks(line: Line, wanted: Line) -> bool:
    """Whether two evaluations have one set of tasks, with their metrics, measured alike."""
    ours, theirs = (measures({"tasks": each.get("tasks")}) for each in (line, wanted))
    return ours.keys() == theirs.keys() and not any(
        disagreement([ours[key], theirs[key]]) for key in ours
    )


def of_all(side: Sequence[Run], value: Callable[[Line], Any]) -> list[dict[int, float]]:
    """Returns {step: value} of each run, where the value is a number."""
    return [
        {line["step"]: v for line in run.evaluations if is_number(v := value(line))} for run in side
    ]


def accuracy_target(
    pairs: Pairs, ours: Sequence[Run], theirs: Sequence[Run], rows: Sequence[Row], paired: bool
) -> Level | None:
    """Says what it took to reach the baseline's average accuracy of the last of ``rows``.

    The error, 1 - accuracy, stands where ``speedup`` has a loss. A few checkpoints are evaluated,
    so that the goal may be met at the first of them: ``at_goal`` gives no figure then.

    Args:
        pairs: (run, baseline) as the losses were compared.
        ours: the arm's runs; in the baseline's order where ``paired``.
        theirs: the baseline's.
        rows: of ``average_rows``.
        paired: whether ``pairs`` are seeds, or one pair of means.
    """
    if not rows:
        return None
    if paired:
        sides = [averages(side, last_average(theirs[0])) for side in (ours, theirs)]
    else:
        sides = [
            [{row.step: row.run.value for row in rows}],
            [{row.step: row.baseline.value for row in rows}],
        ]
    common = {row.step for row in rows}
    matched = [
        (with_errors(run, ours_at).at(common), with_errors(baseline, theirs_at).at(common))
        for (run, baseline), ours_at, theirs_at in zip(pairs, *sides, strict=True)
    ]
    return at_goal(matched, [1 - accuracy[rows[-1].step] for accuracy in sides[1]])


def with_errors(trace: Trace, accuracies: dict[int, float]) -> Trace:
    return replace(trace, curve=[(step, 1 - value) for step, value in sorted(accuracies.items())])

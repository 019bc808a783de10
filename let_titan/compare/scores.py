"""What checkpoints scored: task accuracy and perplexity, at steps that all runs have."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from let_titan.compare.rows import Row, rows_of
from let_titan.compare.speedup import Level, Pairs, at_goal
from let_titan.compare.trace import Trace
from let_titan.runs import Line, Run, is_number

PERPLEXITY = "bits per byte"


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


def scores_of(line: Line) -> dict[tuple[str, str], float]:
    """Returns {(task or domain, metric): value} of one evaluation, without what is no number."""
    tasks = (line.get("tasks") or {}).items()
    domains = (line.get("perplexity") or {}).items()
    found: dict[tuple[str, str], Any] = {
        (name, task["metric"]): task.get(task["metric"]) for name, task in tasks
    }
    found |= {(name, PERPLEXITY): domain.get("bits_per_byte") for name, domain in domains}
    return {key: value for key, value in found.items() if is_number(value)}


def compare_scores(ours: Sequence[Run], theirs: Sequence[Run], paired: bool) -> list[Score]:
    """Compares every task and domain that all runs were evaluated on at one step."""
    keys = dict.fromkeys(key for line in theirs[0].evaluations for key in scores_of(line))
    found = []
    for key in keys:

        def value(line: Line, key: tuple[str, str] = key) -> Any:
            return scores_of(line).get(key)

        rows = rows_of(*(of_all(side, value) for side in (ours, theirs)), paired=paired)
        if rows:
            found.append(Score(*key, rows[-1]))
    return found


def average_rows(ours: Sequence[Run], theirs: Sequence[Run], paired: bool) -> list[Row]:
    """Compares the tasks' average wherever all runs have it over the same tasks.

    Those of the baseline's last evaluation: an average of others is another measure.
    """
    return rows_of(*(averages(side, tasks(theirs[0])) for side in (ours, theirs)), paired=paired)


def tasks(run: Run) -> Any:
    """Returns the tasks with their metrics of a run's last average; None without one."""
    lines = [line for line in run.evaluations if is_number(line.get("average"))]
    return measured(lines[-1]) if lines else None


def measured(line: Line) -> set[tuple[str, str]]:
    return {(name, task["metric"]) for name, task in (line.get("tasks") or {}).items()}


def averages(side: Sequence[Run], wanted: Any) -> list[dict[int, float]]:
    return of_all(side, lambda line: line.get("average") if measured(line) == wanted else None)


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
        sides = [averages(side, tasks(theirs[0])) for side in (ours, theirs)]
    else:
        sides = [
            [{row.step: row.run.value for row in rows}],
            [{row.step: row.baseline.value for row in rows}],
        ]
    matched = [
        (with_errors(run, ours_at), with_errors(baseline, theirs_at))
        for (run, baseline), ours_at, theirs_at in zip(pairs, *sides, strict=True)
    ]
    return at_goal(matched, [1 - accuracy[rows[-1].step] for accuracy in sides[1]])


def with_errors(trace: Trace, accuracies: dict[int, float]) -> Trace:
    return replace(trace, curve=[(step, 1 - value) for step, value in sorted(accuracies.items())])

"""Figures in words: cells, intervals, tables, the verdict."""

from collections.abc import Sequence
from typing import Any

from let_titan.compare.arms import Arm
from let_titan.compare.result import ArmResult
from let_titan.compare.speedup import Level
from let_titan.compare.stats import Estimate

COST_NAMES = {
    "steps": "optimiser steps",
    "tokens": "tokens",
    "flops": "FLOPs, the teacher's included",
    "seconds": "wall time, s",
    "device_hours": "device-hours",
}
SCORE_HEADER = ["", "metric", "step", "baseline", "run", "difference (95 % interval)"]
METHOD = (
    "Intervals are 95 %, over seeds, by Student's t. Between two evaluations the best loss so far "
    "(the monotone envelope) is taken as a straight line, as are the counts of what was spent. A "
    "speed-up is baseline / run, so that more than 1 is faster; over several seeds it is their "
    "geometric mean. FLOPs are counted by formula, the teacher's forward included. Throughput "
    "leaves out the first window after each start of a run."
)

UNSEEN = (
    "No speed-up can be given: it was there at a first evaluation already, and how long before "
    "that is not known"
)


def show(value: Any) -> str:
    """Formats a cell."""
    if value is None or value == "":
        return "n/a"
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    if abs(value) >= 1e11:
        return f"{value:.3e}"
    return f"{value:,.0f}" if isinstance(value, int) or abs(value) >= 1000 else f"{value:.4g}"


def span(steps: Sequence[int]) -> str:
    """Returns "FIRST to LAST" of steps in order, or the only one."""
    ends = dict.fromkeys((steps[0], steps[-1]))
    return " to ".join(f"{step:,}" for step in ends)


def interval(estimate: Estimate, form: str) -> str:
    """Returns "VALUE (LOW to HIGH)", each in ``form``; without an interval the value alone."""
    value = form.format(estimate.value)
    if estimate.low is None:
        return value
    return f"{value} ({form.format(estimate.low)} to {form.format(estimate.high)})"


def factor(estimate: Estimate | None) -> str:
    return "n/a" if estimate is None else interval(estimate, "{:.3f}x")


def hours_name(arm: Arm) -> str:
    """Returns "GPU-hours" where the runs had GPUs."""
    return "GPU-hours" if arm.runs[0].fact("hardware.device") == "cuda" else "device-hours"


def cost_rows(target: Level, hours: str) -> list[list[str]]:
    """Returns (cost, baseline, run, speed-up) for each cost of reaching ``target``."""
    missed = "n/a" if target.reached == target.n else "not reached"
    return [
        [
            hours if name == "device_hours" else COST_NAMES[name],
            show(cost.baseline),
            show(cost.run) if cost.run is not None else missed,
            factor(cost.speed_up),
        ]
        for name, cost in target.costs.items()
    ]


def score_rows(result: ArmResult) -> list[list[str]]:
    """Returns (task or domain, metric, step, baseline, run, run - baseline), the average last."""
    cells = [(score.name, score.metric, score.row) for score in result.scores]
    if result.averages:
        cells.append(("average of the tasks", "accuracy", result.averages[-1]))
    return [
        [
            name,
            metric,
            f"{row.step:,}",
            f"{row.baseline.value:.4f}",
            f"{row.run.value:.4f}",
            interval(row.difference, "{:+.4f}"),
        ]
        for name, metric, row in cells
    ]


def accuracy_sentence(result: ArmResult) -> str:
    """Says what accuracy was to be reached, and by how many; "" without one."""
    level = result.accuracy
    if level is None:
        return ""
    return (
        f"Spent until the tasks' average is {1 - level.loss:.4f}, the baseline's at step "
        f"{result.averages[-1].step:,} ({level.reached} of {level.n} reached it)"
        f"{'. ' + UNSEEN if level.unseen else ''}:"
    )


def digits(by: Estimate) -> int:
    """Returns the decimals of a difference in loss: 3, or more where it would read as nothing.

    Where an interval excludes 0 no figure is to read "0.000"; otherwise not all of them are. One
    without an interval stays at 3: so small a difference of one seed is called level.
    """
    if by.low is None or by.high is None:
        return 3
    figures = (by.value, by.low, by.high)
    least = (min if by.excludes(0) else max)(map(abs, figures))
    count = 3
    while (
        count < 9
        and least
        and (
            round(least, count) == 0
            or (count > 3 and round(by.low, count) == round(by.high, count))
        )
    ):
        count += 1
    return count


def headline(result: ArmResult) -> str:
    """Says who ended lower, how sure that is and what speaks against it."""
    return " ".join([outcome(result), *result.caveats])


def outcome(result: ArmResult) -> str:
    """Says who ended lower and how sure that is."""
    row, name = result.rows[-1], result.name
    where = f"at step {row.step:,}" if result.is_end else f"at step {row.step:,}, the last in all"
    if any(result.diverged):
        of = zip((name, "the baseline"), result.diverged, strict=True)
        who = " and ".join(f"{count} of {side}" for side, count in of if count)
        return f"{name} cannot be compared {where}: runs diverged ({who})."
    by = row.difference
    d = digits(by)
    size = f"{abs(by.value):.{d}f} nats per token"
    side = "lower" if by.value < 0 else "higher"
    if by.low is None:
        certainty = "With one seed on a side there is no interval: it may be chance."
        if float(f"{by.value:.3f}") == 0:
            return f"{name} is level with its baseline {where}. {certainty}"
        return f"{name} is {size} {side} than its baseline {where}. {certainty}"
    runs = f"{by.n} seeds" if result.paired else f"{row.run.n} runs against {row.baseline.n}"
    sure = f"95 % interval {by.low:+.{d}f} to {by.high:+.{d}f}, {by.test}, {runs}"
    if not by.excludes(0):
        size = f"{by.value:+.{d}f} nats per token"
        return f"{name} cannot be told from its baseline {where}: {size} ({sure})."
    return f"{name} is {size} {side} than its baseline {where} ({sure})."


def speed_sentence(result: ArmResult) -> str:
    """Says how much sooner the arm was where the baseline ended, if it got there."""
    target = result.target
    if target is None:
        if result.diverged[1]:
            return "The baseline diverged, so there is no loss to reach."
        return "No speed-up is given to runs that diverged."
    goal = f"the baseline's {target.loss:.3f}"
    if target.reached < target.n:
        if target.n == 1:
            return f"It did not reach {goal}."
        which = "None" if target.reached == 0 else f"Only {target.reached}"
        return f"{which} of its {target.n} runs reached {goal}, so no speed-up can be given."
    if target.unseen:
        return f"{UNSEEN} (the goal is {goal})."
    names = {"steps": "in steps", "flops": "in FLOPs (teacher included)", "seconds": "in time"}
    parts = [
        f"{factor(cost.speed_up)} {words}"
        for name, words in names.items()
        if (cost := target.costs[name]).speed_up is not None
    ]
    return f"Its speed-up to {goal}: {', '.join(parts)}."


def verdict(result: ArmResult) -> str:
    """Returns the two sentences that a reader should take home."""
    return f"{headline(result)} {speed_sentence(result)}"


def markdown_table(header: list[str], rows: list[list[Any]]) -> str:
    """Returns a Markdown table."""
    cells = [[markdown_cell(show(cell)) for cell in row] for row in rows]
    lines = [[markdown_cell(name) for name in header], ["---"] * len(header), *cells]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def markdown_cell(text: str) -> str:
    """Returns a text of any lines as one cell."""
    return " ".join(text.split()).replace("|", r"\|")

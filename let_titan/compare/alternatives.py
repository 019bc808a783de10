"""What each chart shows, in sentences for those who do not see it."""

from collections.abc import Callable, Sequence

from let_titan.compare.charts import TEACHERS, series
from let_titan.compare.phases import FIGURES
from let_titan.compare.result import ArmResult, Comparison
from let_titan.compare.rows import Row
from let_titan.compare.text import interval, show, span
from let_titan.runs import Run


def validation(comparison: Comparison) -> str:
    """Says where the losses begin and end, and by how much they differ."""
    rows = [[row for row in result.rows if row.step > 0] for result in comparison.results]
    return both_panels(comparison, rows, "Validation loss in nats per token", "{:.3f}", "{:+.3f}")


def accuracy(comparison: Comparison) -> str:
    """Says the same of the tasks' average accuracy."""
    rows = [result.averages for result in comparison.results]
    return both_panels(comparison, rows, "Average accuracy of the tasks", "{:.4f}", "{:+.4f}")


def both_panels(
    comparison: Comparison, rows: Sequence[Sequence[Row]], what: str, form: str, by: str
) -> str:
    first, last = rows[0][0], rows[0][-1]
    lines = {
        "baseline": (first.baseline.value, last.baseline.value),
        **{
            result.name: (own[0].run.value, own[-1].run.value)
            for result, own in zip(comparison.results, rows, strict=True)
        },
    }
    ends = [f"{name} {form.format(a)} to {form.format(b)}" for name, (a, b) in lines.items()]
    differences = [
        f"{result.name} {interval(own[-1].difference, by)}"
        for result, own in zip(comparison.results, rows, strict=True)
    ]
    return (
        f"{what}, from step {first.step:,} to {last.step:,}: {'; '.join(ends)}. "
        f"Run minus baseline at the end: {'; '.join(differences)}.{teacher(comparison)}"
    )


def teacher(comparison: Comparison) -> str:
    """Says when the teachers leave; "" without any."""
    stops = {arm.stops for arm in comparison.arms if arm.has_teacher}
    steps = " or ".join(map(span, sorted(stops)))
    return f" The teacher leaves at step {steps}." if stops else ""


def speedup(comparison: Comparison) -> str:
    """Says between which factors each curve of speed-ups lies, and where it ends."""
    names = {"steps": "in steps", "flops": "in FLOPs", "seconds": "in wall time"}
    parts = [
        curve(result, name, words) for result in comparison.results for name, words in names.items()
    ]
    known = "; ".join(part for part in parts if part)
    return f"Speed-up by validation loss reached: {known or 'no level was reached by all'}."


def curve(result: ArmResult, name: str, words: str) -> str:
    points = [
        (level.loss, both.value) for level in result.curve if (both := level.costs[name].speed_up)
    ]
    if not points:
        return ""
    values = [value for _, value in points]
    return (
        f"{result.name} {words} between {min(values):.2f}x and {max(values):.2f}x, "
        f"{values[-1]:.2f}x at its last loss, {points[-1][0]:.3f}"
    )


def costs(comparison: Comparison) -> str:
    """Says mean throughput and memory of the baseline and of every arm's phases."""
    phases = {f"baseline, {name}": figures for name, figures in comparison.baseline_phases.items()}
    for result in comparison.results:
        phases |= {f"{result.name}, {name}": figures for name, figures in result.phases.items()}
    means = [
        f"{name}: {' and '.join(show(figures[key].mean.value) for key in FIGURES)}"
        for name, figures in phases.items()
    ]
    return f"Mean tokens/s and GiB of memory. {'; '.join(means)}."


def alignment(comparison: Comparison) -> str:
    """Says where weight, cosine and gradient norm of each arm's first run begin and end."""
    names = {"lambda": "lambda", "align_cosine": "cosine", "grad_norm": "gradient norm"}
    parts = [
        f"{arm.name}: {', '.join(found)}"
        for arm in (comparison.baseline, *comparison.arms)
        if (
            found := [
                words
                for key, name in names.items()
                if (arm.has_teacher or key not in TEACHERS)
                and (words := ends(arm.runs[0], key, name))
            ]
        )
    ]
    return f"First and last value of each arm's first run. {'; '.join(parts)}.{teacher(comparison)}"


def ends(run: Run, key: str, name: str) -> str:
    _, values = series(run, key)
    return f"{name} {values[0]:.3g} to {values[-1]:.3g}" if values else ""


ALTERNATIVES: dict[str, Callable[[Comparison], str]] = {
    "validation_loss": validation,
    "accuracy": accuracy,
    "speedup": speedup,
    "costs": costs,
    "alignment": alignment,
}
"""By the names of ``charts.CHARTS``."""

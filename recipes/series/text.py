"""The study's report in Markdown."""

from collections.abc import Sequence
from typing import Any

from let_titan.compare.stats import Estimate
from series.findings import ArmOnSet, Findings, OverSets
from series.study import Study


def as_markdown(study: Study, found: Findings, facts: dict[str, Any]) -> str:
    """Returns report.md; ``facts`` are ``surroundings`` and the sets' and models' facts."""
    versions = ", ".join(f"{name} {version}" for name, version in facts["versions"].items())
    training = study.training
    lines = [
        "# LET on time series",
        "",
        f"Written down before the first run: {study.hypothesis}",
        "",
        f"Deciding: {study.deciding}",
        "",
        f"`recipes/time_series.py` ({versions}; {facts['hardware']['cpu']}, one thread). "
        f"{seeds(study, found)} {training.steps} steps of {training.batch} series, AdamW, the "
        f"teacher beside LET for the first {training.s_stop}. Intervals are 95 %, paired by seed.",
        "",
        "## What was learned from what",
        "",
        *sets_table(study, found, facts),
        "",
        f"Training a teacher took {found.teacher_cpu_s:.1f} s of CPU time, which no figure below "
        "counts; a step's time counts the teacher's forward.",
    ]
    for student, rows in found.arms.items():
        lines += [
            "",
            f"## {student} as the student",
            "",
            *[verdict(found.over_sets[student], arm.name) for arm in study.arms[1:]],
            "",
            *arms_table(rows, study.arms[0].name),
            "",
            ranks(found.over_sets[student]),
        ]
    return "\n".join(
        [
            *lines,
            "",
            "![Difference of final test accuracy to the baseline](differences.png)",
            "",
            "![Test accuracy by step](curves.png)",
            "",
        ]
    )


def seeds(study: Study, found: Findings) -> str:
    counts = {row.difference.n for rows in found.arms.values() for row in rows}
    if counts == {len(study.seeds)}:
        return f"{len(study.seeds)} seeds."
    text = " to ".join(str(n) for n in sorted({min(counts), max(counts)}))
    return f"{text} of {len(study.seeds)} seeds so far; before all are there, nothing is decided."


def sets_table(study: Study, found: Findings, facts: dict[str, Any]) -> list[str]:
    models = ["teacher", *study.students]
    head = ["set", "train", "test", "channels", "steps", "classes"]
    head += [f"{name}: parameters, rate" for name in models] + ["teacher's test accuracy"]
    lines = [row_of(head), row_of(["---"] * len(head))]
    for name in found.teachers:
        of_set = facts["sets"][name]
        steps = f"{of_set['longest']}" + (
            f", means of {of_set['cell']}" if of_set["cell"] > 1 else ""
        )
        cells = [name, of_set["train"], of_set["test"], of_set["channels"], steps]
        cells += [of_set["classes"]]
        cells += [f"{of_set['parameters'][m]:,}, {of_set['rates'][m]:g}" for m in models]
        lines.append(row_of([*cells, percent(found.teachers[name])]))
    return lines


def arms_table(rows: Sequence[ArmOnSet], baseline: str) -> list[str]:
    head = ["set", "arm", "test accuracy, %", "difference", "steps to the baseline's", "speed-up"]
    head += ["CPU ms a step"]
    lines = [row_of(head), row_of(["---"] * len(head))]
    for row in rows:
        speed = row.level.costs["steps"].speed_up
        is_baseline = row.arm == baseline
        lines.append(
            row_of(
                [
                    row.set if is_baseline else "",
                    row.arm,
                    f"{100 * row.accuracy.value:.1f}",
                    "" if is_baseline else percent(row.difference, "+"),
                    f"{row.steps:.0f}"
                    + ("" if row.level.reached == row.level.n else f" ({reached(row)})"),
                    "" if is_baseline or speed is None else interval(speed, ".2f"),
                    f"{row.cpu_ms:.1f}",
                ]
            )
        )
    return lines


def reached(row: ArmOnSet) -> str:
    return f"reached by {row.level.reached} of {row.level.n}"


def verdict(over: OverSets, arm: str) -> str:
    """One sentence: do the tests over sets tell the arm from the baseline?"""
    said = []
    for what, p in (("accuracy", over.accuracy[arm]), ("steps", over.steps[arm])):
        known = "differs from" if p < 0.05 else "cannot be told from"
        said.append(f"in {what} {known} the baseline (p = {p:.3f})")
    return f"- **{arm}** {' and '.join(said)} over {over.n_sets} sets."


def ranks(over: OverSets) -> str:
    said = ", ".join(f"{name} {rank:.2f}" for name, rank in over.ranks.items())
    p = "none" if over.friedman is None else f"{over.friedman:.3f}"
    return (
        f"Mean ranks by accuracy: {said}; Friedman's p {p}; two ranks differ if they are "
        f"{over.critical_difference:.2f} apart (Nemenyi, 5 %)."
    )


def percent(estimate: Estimate, sign: str = "") -> str:
    """Returns an accuracy, or a difference of two, in percent with its interval."""
    parts = [None if x is None else 100 * x for x in (estimate.value, estimate.low, estimate.high)]
    return bracketed(parts, f"{sign}z.1f")


def interval(estimate: Estimate, digits: str) -> str:
    return bracketed([estimate.value, estimate.low, estimate.high], digits)


def bracketed(parts: Sequence[float | None], digits: str) -> str:
    value, low, high = parts
    text = f"{value:{digits}}"
    return text if low is None or high is None else f"{text} ({low:{digits}} to {high:{digits}})"


def row_of(cells: Sequence[Any]) -> str:
    return f"| {' | '.join(str(cell) for cell in cells)} |"

"""The theory's report in Markdown."""

import statistics
from collections.abc import Sequence
from typing import Any

import numpy as np

from theory.figures import setting_of, title


def as_markdown(results: dict[str, Any]) -> str:
    """Returns report.md: the formula's errors, then each setting's arms."""
    minima = results["minima"]
    spectrum = max(row["spectrum_error"] for row in minima)
    rate = max(abs(row["rate_measured"] - row["rate_predicted"]) for row in minima)
    versions = ", ".join(f"{name} {version}" for name, version in results["versions"].items())
    lines = [
        "# Deep linear networks: what an alignment does to the landscape",
        "",
        f"`python recipes/why_early.py` ({versions}, float64, CPU). docs/why-early.md says what",
        "was predicted. Medians over seeds; in brackets the smallest and the largest.",
        "",
        "## At the minimum",
        "",
        f"{len(minima)} minima (depths {min(r['depth'] for r in minima)} to "
        f"{max(r['depth'] for r in minima)}, every k): the exact Hessian's spectrum differs from "
        f"the formula by at most {spectrum:.1e} of its largest eigenvalue; gradient descent's "
        f"factor a step from the predicted one by at most {rate:.1e}.",
        "",
        "![Condition number by k and depth](minima.png)",
        "",
        "## Where descent ends, and after how many steps",
        "",
        "Condition numbers are those of the learning rate with the fewest steps to 1e-6; of an arm",
        "that no rate brings there they are those of the smallest, "
        f"{results['learning_rates'][0]:g}.",
        "",
    ]
    descent = results["descent"]
    for setting in dict.fromkeys(setting_of(row) for row in descent):
        lines += [f"### {title(setting)}", "", *table(descent, setting), ""]
    lines += ["## Along the way", "", *last_rates(results["along"]), ""]
    lines += ["![Loss, condition number and spectrum along descent](along.png)", ""]
    lines += ["![Condition number at the end](kappa.png)", "", "![Steps](steps.png)", ""]
    return "\n".join(lines)


def table(descent: Sequence[dict[str, Any]], setting: tuple[int, float, str]) -> list[str]:
    rows = [row for row in descent if setting_of(row) == setting]
    return [
        "| arm | aligned block | condition number at the end | steps to 1e-3 | steps to 1e-6 |",
        "|---|---|---|---|---|",
        *(
            f"| {row['arm']} | {row['block'] or '-'} | {spread_of(row['kappa'], '.3g')} "
            f"| {spread_of(row['steps_to_0.001'], '.0f')} "
            f"| {spread_of(row['steps_to_1e-06'], '.0f')} |"
            for row in rows
        ),
    ]


def last_rates(courses: Sequence[dict[str, Any]]) -> list[str]:
    """A row an arm: its last rate, and when it was the better conditioned one."""
    alone = {
        (row["depth"], row["spread"]): row for row in courses if row["arm"] == courses[0]["arm"]
    }
    lines = [
        "The factor by which a step shrinks the loss at the end, predicted by the exact Hessian "
        "(largest (1 - lr mu)^2) and measured; and from which step on the condition number stays "
        f"below that of {courses[0]['arm']}. One learning rate an arm, as above.",
        "",
        "| L, spread | arm | learning rate | predicted | measured | furthest apart | below from |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in courses:
        found, wanted = row["rate_measured"], row["rate_predicted"]
        apart = max(abs(a - b) for a, b in zip(found, wanted, strict=True)) if wanted else None
        lines.append(
            f"| {row['depth']}, {row['spread']:g} | {row['arm']} | {row['rate']} "
            f"| {f'{statistics.median(wanted):.4f}' if wanted else 'a teacher pulls'} "
            f"| {statistics.median(found):.4f} | {'' if apart is None else f'{apart:.1e}'} "
            f"| {below_from(row, alone[row['depth'], row['spread']])} |"
        )
    return lines


def below_from(row: dict[str, Any], alone: dict[str, Any]) -> str:
    """Returns the first step looked at from which an arm's condition number stays below another's.

    Between the other's looks a straight line counts, and after its last that one.
    """
    if row is alone:
        return ""
    steps, others = zip(*alone["kappa"], strict=True)
    below = [kappa < np.interp(step, steps, others) for step, kappa in row["kappa"]]
    from_here = len(below) - next((i for i, ok in enumerate(below[::-1]) if not ok), len(below))
    return "never" if from_here == len(below) else str(row["kappa"][from_here][0])


def spread_of(values: Sequence[float | None], digits: str) -> str:
    """Returns "median (smallest to largest)", and how many seeds did not get there."""
    found = [value for value in values if value is not None]
    if not found:
        return "not reached"
    text = f"{statistics.median(found):{digits}} ({min(found):{digits}} to {max(found):{digits}})"
    missing = len(values) - len(found)
    return text + (f", {missing} of {len(values)} not reached" if missing else "")

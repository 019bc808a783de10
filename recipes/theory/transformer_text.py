"""Question 3's results: a table, a verdict on each prediction, and a chart."""

import json
import math
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from let_titan.compare.drawing import COLORS, MUTED, STYLE
from let_titan.compare.stats import mean

Rows = Sequence[dict[str, Any]]

ARMS = ("baseline", "LET")
SIGMAS = 2
"""A trace within so many standard errors of zero says nothing of the mean eigenvalue."""


def unevenness(row: dict[str, Any]) -> float:
    """Returns the largest over the mean eigenvalue; NaN where the trace is too uncertain for it."""
    if row["trace"] < SIGMAS * row["trace_error"]:
        return math.nan
    return row["eigenvalues"][0] * row["n"] / row["trace"]


SHOWN: dict[str, tuple[str, Callable[[dict[str, Any]], float]]] = {
    "top": ("largest eigenvalue", lambda row: row["eigenvalues"][0]),
    "trace": ("trace", lambda row: row["trace"]),
    "uneven": ("largest over mean eigenvalue", unevenness),
    "angle": ("cosine of the two gradients at block k", lambda row: row["gradient_cosine"]),
    "cosine": ("cosine of block k to the teacher", lambda row: row["cosine"]),
    "nll": ("NLL, nats per token", lambda row: row["nll"]),
}
"""What is shown of a checkpoint: its name, and how it is had from a row."""


def values(rows: Rows, arm: str, step: int, measure: str) -> list[float]:
    """Returns a measure of an arm at a step, by seed."""
    found = [row for row in rows if row["arm"] == arm and row["step"] == step]
    return [SHOWN[measure][1](row) for row in sorted(found, key=lambda row: row["seed"])]


def differences(rows: Rows, step: int, measure: str) -> list[float]:
    """Returns LET - baseline by seed, of those in which both are known."""
    both = [values(rows, arm, step, measure) for arm in ("LET", "baseline")]
    found = [let - baseline for let, baseline in zip(*both, strict=True)]
    return [difference for difference in found if not math.isnan(difference)]


def steps_in(rows: Rows) -> list[int]:
    return sorted({row["step"] for row in rows})


def verdicts(rows: Rows, s_stop: int) -> list[tuple[str, str]]:
    """Returns (prediction, what came out); theory/students.py has why they were expected."""
    said = []
    for measure, name in (("top", "the largest eigenvalue"), ("uneven", "its ratio to the mean")):
        found = {step: differences(rows, step, measure) for step in steps_in(rows)}
        every = all(x < 0 for of_step in found.values() for x in of_step)
        seeds = "; ".join(
            f"step {step}: lower in {sum(x < 0 for x in of_step)} of {len(of_step)}"
            for step, of_step in found.items()
        )
        outcome = f"{'yes' if every else 'not throughout'} ({seeds})"
        said.append((f"{name} is lower with LET, before and after step {s_stop}", outcome))
    for arm in ARMS:
        angles = {step: values(rows, arm, step, "angle") for step in steps_in(rows)}
        first, last = steps_in(rows)[0], steps_in(rows)[-1]
        agrees = all(angle > 0 for angle in angles[first])
        falls = all(b < a for a, b in zip(angles[first], angles[last], strict=True))
        shown = ", ".join(f"step {step}: {statistics.fmean(v):+.3f}" for step, v in angles.items())
        said.append(
            (
                f"{arm}: the gradients agree at first and less later",
                f"{'they agree' if agrees else 'they do not agree in every seed'} at step {first} "
                f"and {'less' if falls else 'not less in every seed'} at step {last} ({shown})",
            )
        )
    return said


def table(rows: Rows) -> list[str]:
    """Means over seeds of both arms, and the paired difference where there are seeds enough."""
    lines = ["| | step | baseline | LET | LET - baseline |", "|---|---|---|---|---|"]
    for measure, (name, _) in SHOWN.items():
        for step in steps_in(rows):
            cells = [mean_of(values(rows, arm, step, measure)) for arm in ARMS]
            by_seed = differences(rows, step, measure)
            lines.append(f"| {name} | {step} | {' | '.join(cells)} | {interval(by_seed)} |")
    return lines


def mean_of(found: Sequence[float]) -> str:
    """Returns the mean of what is known, and of how many that is where something is not."""
    known = [value for value in found if not math.isnan(value)]
    if not known:
        return "not determined"
    missing = "" if len(known) == len(found) else f" ({len(known)} of {len(found)})"
    return f"{statistics.fmean(known):.4g}{missing}"


def interval(by_seed: Sequence[float]) -> str:
    if not by_seed:
        return "not determined"
    found = mean(by_seed)
    ends = "" if found.low is None else f" ({found.low:+.3g} to {found.high:+.3g})"
    return f"{found.value:+.3g}{ends}"


def as_markdown(rows: Rows, facts: dict[str, Any]) -> str:
    seeds = sorted({row["seed"] for row in rows})
    errors = [row["trace_error"] / abs(row["trace"]) for row in rows]
    versions = ", ".join(f"{name} {facts['versions'][name]}" for name in ("python", "torch"))
    return "\n".join(
        [
            "# The demo's Transformer: curvature and angle with LET and without",
            "",
            f"`python recipes/why_early_transformer.py` ({versions}; {facts['hardware']['cpu']}, "
            f"one thread). Seeds {', '.join(map(str, seeds))}. {rows[0]['n']:,} weights of the "
            "blocks, the others held. Hessian of the NLL on a window of the validation text, in "
            "float32: Lanczos (scipy's eigsh, relative tolerance 1e-2) on Hessian-vector products, "
            f"{statistics.fmean(row['products'] for row in rows):.0f} a checkpoint; trace by "
            f"Hutchinson, standard error {statistics.median(errors):.0%} of it (median); where it "
            f"is less than {SIGMAS} of its errors above zero, the mean eigenvalue counts as not "
            "determined. Angle, cosine and NLL on eight windows. "
            f"The teacher leaves after step {facts['s_stop']} of {steps_in(rows)[-1]}.",
            "",
            "| predicted | came out |",
            "|---|---|",
            *(f"| {what} | {how} |" for what, how in verdicts(rows, facts["s_stop"])),
            "",
            "Means over seeds; in brackets the 95 % interval of the paired difference:",
            "",
            *table(rows),
            "",
            "![By step](transformer.png)",
            "",
        ]
    )


def draw(rows: Rows, s_stop: int, path: Path) -> None:
    """Every seed's figures by step, a panel a measure; the bar is where the teacher leaves."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(8.5, 5.0), layout="constrained")
        panels = figure.subplots(2, 3, sharex=True).flatten()
        for axes, (measure, (name, _)) in zip(panels, SHOWN.items(), strict=True):
            for arm, color in zip(ARMS, COLORS, strict=False):
                found = [values(rows, arm, step, measure) for step in steps_in(rows)]
                for number, line in enumerate(zip(*found, strict=True)):
                    label = f"{arm}, each seed" if number == 0 else None
                    axes.plot(steps_in(rows), line, "o-", color=color, ms=3, lw=1, label=label)
            axes.axvline(s_stop, color=MUTED, lw=1, ls=(0, (4, 3)))
            axes.set_title(name, fontsize=9)
        panels[1].set_yscale("symlog", linthresh=10)  # of either sign
        panels[-1].legend()
        figure.supxlabel("optimiser step; dashed: the teacher leaves", fontsize=9)
        figure.savefig(path, dpi=130)


def write_results(rows: Rows, s_stop: int, summary: dict[str, Any], folder: Path) -> None:
    """Writes transformer.json, .md and .png into ``folder``; ``summary`` is a run's."""
    facts = {key: summary[key] for key in ("versions", "hardware")} | {"s_stop": s_stop}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "transformer.json").write_text(json.dumps({**facts, "rows": rows}, indent=1) + "\n")
    draw(rows, s_stop, folder / "transformer.png")
    (folder / "transformer.md").write_text(as_markdown(rows, facts))

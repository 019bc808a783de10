"""A baseline and its LET twin side by side, in Markdown with plots.

python -m let_titan.report RUNS/baseline RUNS/let --out REPORT
"""

import argparse
import math
import os
import shlex
import sys
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from let_titan.runs import Run, crossing_step

COLORS = {"baseline": "#0072B2", "LET": "#D55E00"}  # of Okabe and Ito's colour-blind-safe palette
QUICK = "**Quick run: these curves prove nothing, the run only proves that the path works.**"
UNITS = {"tokens (billions)": 1e9, "tokens (millions)": 1e6, "tokens (thousands)": 1e3}
OWN = {"job", "let", "teacher"}  # sections in which twins may differ
SURROUNDINGS = ("data", "validation_data", "tokenizer", "hardware", "versions", "git_commit")
COSTS = {
    "optimiser steps": ("step",),
    "FLOPs, the teacher's included": ("student_flops", "teacher_flops"),
    "elapsed time, s": ("elapsed_s",),
}
TOTALS = {
    "wall time, s": "wall_time_s",
    "tokens": "last.tokens",
    "student FLOPs": "last.student_flops",
    "teacher FLOPs": "last.teacher_flops",
    "exit state": "exit_state",
}
SETTINGS = {
    "student": "config.model.flavor",
    "parameters in the blocks": "parameters.blocks",
    "parameters in total": "parameters.total",
    "init_scheme": "config.model.init_scheme",
    "teacher": "config.teacher.checkpoint",
    "k": "let_plan.pairs.block",
    "lambda_0": "let_plan.lambda_0",
    "s_stop": "let_plan.s_stop",
    "schedule of lambda": "let_plan.schedule",
    "steps": "config.training.steps",
    "learning rate": "config.optimizer.lr",
    "seed": "config.debug.seed",
}


def costs_of(run: Run, level: float) -> list[float | None]:
    """Returns what ``run`` spent to reach ``level``, in the units of ``COSTS``."""
    step = crossing_step(run.curve, level)
    return [None if step is None else run.total(keys, step) for keys in COSTS.values()]


def validation_table(baseline: Run, let: Run) -> list[tuple[int, float, float]]:
    """Returns (step, baseline's loss, LET's loss) wherever both were evaluated.

    Raises:
        ValueError: there is no such step after step 0.
    """
    other = dict(let.curve)
    rows = [(step, loss, other[step]) for step, loss in baseline.curve if step in other]
    if not rows or rows[-1][0] == 0:
        raise ValueError(
            f"{baseline.name} and {let.name} were never evaluated at the same step after step 0: "
            "repeat one of them with the other's validation.freq."
        )
    return rows


def verdict(baseline: Run, let: Run) -> str:
    """Says who ended lower at equal steps, and when LET reached the baseline's final loss."""
    step, level, loss = validation_table(baseline, let)[-1]
    ends = f"LET ended at {loss:.3f}, the baseline at {level:.3f}"
    if not step == baseline.curve[-1][0] == let.curve[-1][0]:
        ends = f"At step {step}, the last in both, LET had {loss:.3f}, the baseline {level:.3f}"
    if not math.isfinite(loss - level):
        return f"{ends}: a run diverged, so there is nothing to compare."
    by = round(loss, 3) - round(level, 3)  # so that the sentence's figures agree
    outcome = f"{abs(by):.3f} {'worse' if by > 0 else 'better'}" if by else "no different"
    costs = list(zip(costs_of(let, level), costs_of(baseline, level), strict=True))
    speed = f"LET did not reach the baseline's {level:.3f} at any step."
    if costs[0][0] is not None:
        speed = (
            f"LET reached the baseline's {level:.3f} at step {costs[0][0]:.0f}, with "
            f"{ratio(*costs[0])} its steps and {ratio(*costs[1])} its FLOPs (teacher included)."
        )
    return f"{ends}: LET is {outcome} at equal steps. {speed}"


def differences(baseline: Run, let: Run) -> str:
    """Names what twins should share and these do not."""
    configs = baseline.summary["config"], let.summary["config"]
    paths = {f"config.{s}.{key}": None for c in configs for s in c if s not in OWN for key in c[s]}
    values = [(path, baseline.fact(path), let.fact(path)) for path in [*paths, *SURROUNDINGS]]
    found = [f"{path} ({show(a)} against {show(b)})" for path, a, b in values if a != b]
    if found:
        return f"**Not twins**: they also differ in {'; '.join(found)}."
    return "They differ in the sections job, let and teacher alone."


def show(value: Any) -> str:
    """Formats a cell."""
    if value is None or value == "":
        return "n/a"
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    if abs(value) >= 1e11:
        return f"{value:.3e}"
    return f"{value:,.0f}" if isinstance(value, int) or abs(value) >= 1000 else f"{value:.4g}"


def ratio(value: float | None, reference: float | None) -> str:
    return f"{value / reference:.3f}x" if value is not None and reference else "n/a"


def table(header: list[str], rows: list[list[Any]]) -> str:
    """Returns a Markdown table."""
    lines = [header, ["---"] * len(header), *([show(cell) for cell in row] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def speed_table(baseline: Run, let: Run) -> str:
    """Throughput and memory in the phases of the two runs."""
    parts = {
        "baseline": baseline.fact("throughput.after"),
        "LET, with the teacher": let.fact("throughput.let_phase"),
        "LET, after it": let.fact("throughput.after"),
    }
    rows: list[list[Any]] = []
    for name, part in parts.items():
        rows.append([name])
        for key in ("tokens_per_s", "peak_memory_gib"):
            value, reference = ((costs or {}).get(key) for costs in (part, parts["baseline"]))
            rows[-1] += [value, ratio(value, reference)]
    return table(["phase", "tokens/s", "to baseline", "memory, GiB", "to baseline"], rows)


def facts_table(baseline: Run, let: Run, facts: dict[str, str]) -> str:
    """Facts of the runs, a run a column."""
    rows = [[name, baseline.fact(path), let.fact(path)] for name, path in facts.items()]
    return table(["", baseline.name, let.name], rows)


def command(run: Run) -> str:
    """Returns the command that repeats ``run`` from the current folder."""
    path = run.fact("config.job.config_file") or "CONFIG.toml"
    path = os.path.relpath(path) if os.path.isabs(path) else path
    start = f"torchrun --nproc_per_node={run.fact('hardware.world_size') or 1}"
    return f"{start} -m let_titan.train --job.config_file {shlex.quote(path)}"


def report(baseline: Run, let: Run, quick: bool = False) -> str:
    """Returns report.md."""
    losses = validation_table(baseline, let)
    level = losses[-1][1]
    costs = zip(COSTS, costs_of(baseline, level), costs_of(let, level), strict=True)
    parts = ((part, key) for part in ("hardware", "versions") for key in let.summary[part])
    machine = {f"{part}: {key}": f"{part}.{key}" for part, key in parts}
    sections = [
        *[QUICK] * quick,
        "# Late-to-Early Training against its baseline",
        verdict(baseline, let),
        f"One seed, {show(let.train[-1]['tokens'])} tokens an arm: a difference smaller than the "
        "spread between seeds means nothing, and one seed cannot show that spread.",
        "![Validation loss by step](validation_loss.png)",
        "## Validation loss (nats per token)",
        table(
            ["step", "baseline", "LET", "LET - baseline"],
            [[str(s), f"{b:.4f}", f"{m:.4f}", f"{m - b:+.4f}"] for s, b, m in losses],
        ),
        f"Spent to reach {level:.4f}, where the baseline ended (best loss so far, interpolated "
        "between evaluations; n/a: not reached):",
        table(
            ["", "baseline", "LET", "LET / baseline"], [[n, b, m, ratio(m, b)] for n, b, m in costs]
        ),
        "## Speed, memory, FLOPs",
        speed_table(baseline, let),
        "Memory is the peak on an accelerator, the resident set on a CPU.",
        facts_table(baseline, let, TOTALS),
        "![Weight and cosine by step](alignment.png)",
        "## Settings",
        facts_table(baseline, let, SETTINGS),
        differences(baseline, let),
        "## Hardware and versions",
        facts_table(baseline, let, {**machine, "git commit": "git_commit"}),
        "## Commands",
        f"```sh\n{command(baseline)}\n{command(let)}\n```",
        "Options from the command line are not in them; the settings above include them.",
    ]
    return "\n\n".join(sections) + "\n"


def panels(let: Run, last: int) -> tuple[Figure, list[Axes]]:
    """Returns two panels above one axis of steps up to ``last``, the teacher's steps shaded."""
    s_stop = let.fact("let_plan.s_stop")
    figure = Figure(figsize=(8, 4.5), dpi=150, layout="constrained")
    axes = list(figure.subplots(2, 1, sharex=True, height_ratios=[3, 2]))
    for panel in axes:
        panel.axvspan(0, s_stop, color=COLORS["LET"], alpha=0.08, linewidth=0)
        panel.axvline(s_stop, color="#555555", linewidth=1)
        panel.grid(alpha=0.25)
    axes[1].set(xlabel="optimiser step", xlim=(0, last))
    # Beside the line where there is room, and below the legend at the upper right
    side, height = ("left", 0.95) if s_stop < 0.6 * last else ("right", 0.7)
    label, where = f" s_stop = {s_stop:,} ", axes[0].get_xaxis_transform()
    axes[0].text(s_stop, height, label, transform=where, va="top", ha=side, clip_on=True)
    return figure, axes


def plot_validation(baseline: Run, let: Run, path: Path) -> None:
    """Validation losses by step and tokens, and below them their difference."""
    figure, (top, bottom) = panels(let, max(baseline.curve[-1][0], let.curve[-1][0]))
    for name, run, style in (("baseline", baseline, "o-"), ("LET", let, "s-")):
        steps, losses = zip(*run.curve, strict=True)
        top.plot(steps, losses, style, color=COLORS[name], markersize=4, label=name)
    rows = validation_table(baseline, let)
    bottom.axhline(0, color=COLORS["baseline"])
    bottom.plot([r[0] for r in rows], [r[2] - r[1] for r in rows], "s-", ms=4, color=COLORS["LET"])
    top.set_ylabel("validation loss\n(nats per token)")
    bottom.set_ylabel("LET - baseline\n(nats per token)")
    tokens, step = let.fact("last.tokens"), let.fact("last.step")
    unit, size = next((u for u in UNITS.items() if tokens >= u[1]), ("tokens", 1))
    scale = tokens / step / size
    axis = top.secondary_xaxis("top", (lambda s: s * scale, lambda t: t / scale))
    axis.set_xlabel(unit)
    top.legend(loc="upper right")
    figure.savefig(path)


def plot_alignment(let: Run, path: Path) -> None:
    """The weight and the cosine of the alignment by step."""
    figure, axes = panels(let, let.curve[-1][0])
    labels = {"lambda": "weight lambda", "align_cosine": "cosine to the teacher"}
    for panel, (key, label) in zip(axes, labels.items(), strict=True):
        points = [(line["step"], line[key]) for line in let.train if line[key] is not None]
        panel.plot(*zip(*points, strict=True), ".-", markersize=3, color=COLORS["LET"])
        panel.set_ylabel(label)
    figure.savefig(path)


def load_twins(baseline: str, let: str) -> tuple[Run, Run]:
    """Reads both folders; ValueError unless they are a baseline and a LET run, in this order."""
    runs = Run.load(baseline), Run.load(let)
    if [bool(run.fact("let_plan.s_stop")) for run in runs] != [False, True]:
        raise ValueError(
            f"{baseline} must have run without a teacher and {let} with one: give the baseline's "
            "folder first, then the LET run's."
        )
    return runs


def main(args: list[str] | None = None) -> int:
    """Writes the report; returns 0, or 2 after a sentence on stderr."""
    parser = argparse.ArgumentParser(prog="let_titan.report", description=__doc__)
    parser.add_argument("baseline", help="folder of the run without a teacher")
    parser.add_argument("let", help="folder of the run with LET")
    parser.add_argument("--out", type=Path, required=True, help="folder to write into")
    parser.add_argument("--quick", action="store_true", help="say that the curves prove nothing")
    options = parser.parse_args(args)
    try:
        twins = load_twins(options.baseline, options.let)
        text = report(*twins, options.quick)
        options.out.mkdir(parents=True, exist_ok=True)
    except (ValueError, OSError) as error:
        print(f"let_titan.report: {error}", file=sys.stderr)
        return 2
    (options.out / "report.md").write_text(text, encoding="utf-8")
    plot_validation(*twins, options.out / "validation_loss.png")
    plot_alignment(twins[1], options.out / "alignment.png")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""The comparison in Weights & Biases, in the group of its runs; offline as well as online."""

import os
from pathlib import Path
from typing import Any

import wandb

from let_titan.compare.charts import drawn
from let_titan.compare.markdown import PHASE_HEADER, phase_rows
from let_titan.compare.result import ArmResult, Comparison
from let_titan.compare.text import SCORE_HEADER, cost_rows, hours_name, score_rows, verdict
from let_titan.wandb_account import PROJECT, is_silent


def publish(comparison: Comparison, folder: Path) -> None:
    """Logs tables, charts and the page as a run named "comparison".

    Args:
        comparison: what to log.
        folder: holds report.html; wandb's own files go there, too.

    Raises:
        ValueError: wandb has no account here and was not told to record offline.
    """
    if is_silent():
        raise ValueError(
            "wandb is off, or has no account on this machine: set WANDB_MODE=offline to record "
            "to the folder, or run wandb login to send."
        )
    source = Path(comparison.baseline.runs[0].fact("config.job.dump_folder") or ".")
    with wandb.init(
        project=os.environ.get("WANDB_PROJECT", PROJECT),
        group=os.environ.get("WANDB_RUN_GROUP", source.parent.name or None),
        name="comparison",
        job_type="comparison",
        dir=folder,
        config={key: [str(value) for value in values] for key, values in comparison.settings},
    ) as run:
        run.log({**tables(comparison), **charts(comparison)})
        run.log({"report": wandb.Html(folder / "report.html", inject=False)})
        run.summary.update(ratios(comparison))
        run.summary["verdict"] = " ".join(verdict(result) for result in comparison.results)


def tables(comparison: Comparison) -> dict[str, Any]:
    """Returns the costs of every arm, and throughput and memory of every phase."""
    hours = hours_name(comparison.baseline)
    costs = [
        [result.name, *row]
        for result in comparison.results
        if result.target is not None
        for row in cost_rows(result.target, hours)
    ]
    header: list[str | int] = ["arm", "cost", "baseline", "arm's", "speed-up"]
    scores = [[result.name, *row] for result in comparison.results for row in score_rows(result)]
    scored = {
        "tasks and perplexity": wandb.Table(
            columns=["arm", "measure", *SCORE_HEADER[1:]], data=scores
        )
    }
    phases = phase_rows(comparison)
    timed = {"throughput and memory": wandb.Table(columns=list(PHASE_HEADER), data=phases)}
    return {
        **(scored if scores else {}),
        "costs to the baseline's loss": wandb.Table(columns=header, data=costs),
        **(timed if phases else {}),
    }


def ratios(comparison: Comparison) -> dict[str, float]:
    """Returns throughput and memory to the baseline, by arm and phase."""
    return {
        f"{result.name}/{phase}/{key} to baseline": figure.to_baseline.value
        for result in comparison.results
        for phase, figures in result.phases.items()
        for key, figure in figures.items()
        if figure.to_baseline is not None
    }


def charts(comparison: Comparison) -> dict[str, Any]:
    """Returns losses and accuracies by step, and the speed-up in steps and FLOPs by loss."""
    losses = {
        result.name: [(r.step, r.run.value) for r in result.rows] for result in comparison.results
    }
    first = comparison.results[0].rows
    found = {
        "validation loss": lines(
            {"baseline": [(r.step, r.baseline.value) for r in first], **losses}, "step"
        )
    }
    if "accuracy" in drawn(comparison):
        averages = {
            r.name: [(row.step, row.run.value) for row in r.averages] for r in comparison.results
        }
        first = comparison.results[0].averages
        found["average accuracy of the tasks"] = lines(
            {"baseline": [(row.step, row.baseline.value) for row in first], **averages}, "step"
        )
    for name in ("steps", "flops"):
        reached = {r.name: points for r in comparison.results if (points := speeds(r, name))}
        if reached:
            found[f"speed-up in {name}"] = lines(reached, "loss reached")
    return found


def speeds(result: ArmResult, name: str) -> list[tuple[float, float]]:
    """Returns (loss, speed-up) at every level that was reached."""
    found = ((level.loss, level.costs[name].speed_up) for level in result.curve)
    return [(loss, speed.value) for loss, speed in found if speed is not None]


def lines(series: dict[str, list[Any]], x: str) -> Any:
    """Returns a chart of {name: (x, y) points}."""
    xs, ys = ([[float(p[i]) for p in points] for points in series.values()] for i in (0, 1))
    return wandb.plot.line_series(xs, ys, keys=list(series), xname=x)

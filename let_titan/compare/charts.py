"""The comparison's charts, by matplotlib: PNG files, and SVG that takes the page's colours."""

import io
import re
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from let_titan.compare.drawing import (
    COLORS,
    STYLE,
    VARIABLES,
    WIDE,
    band,
    by_step,
    legend,
    panels,
    sides,
)
from let_titan.compare.result import ArmResult, Comparison
from let_titan.compare.rows import Row
from let_titan.runs import Run, is_number

TEACHERS = ("lambda", "align_cosine")  # keys that mean nothing without one


def validation(comparison: Comparison, width: float) -> Figure:
    """Losses by step, seeds thin and means thick; below them the difference to the baseline."""
    labels = ("validation loss\n(nats per token)", "run - baseline\n(nats per token)")
    figure, (top, bottom) = panels(width, (2, 1.3), labels)
    for arm, color, marker in sides(comparison):
        curves = [[point for point in run.curve if point[0] > 0] for run in arm.runs]
        if len(curves) > 1:
            for curve in curves:
                top.plot(*zip(*curve, strict=True), color=color, linewidth=0.7, alpha=0.5)
        steps = sorted(set.intersection(*({step for step, _ in curve} for curve in curves)))
        means = [sum(dict(curve)[step] for curve in curves) / len(curves) for step in steps]
        label = arm.name if len(curves) == 1 else f"{arm.name}, mean of {len(curves)} runs"
        top.plot(steps, means, color=color, marker=marker, markersize=4, label=label)
    draw_differences(bottom, comparison, lambda r: [row for row in r.rows if row.step > 0])
    return by_step(figure, (top, bottom), comparison)


def accuracy(comparison: Comparison, width: float) -> Figure:
    """The tasks' average accuracy by step; below it the difference to the baseline."""
    labels = ("average accuracy\nof the tasks", "run - baseline")
    figure, (top, bottom) = panels(width, (2, 1.3), labels)
    for (arm, color, marker), result in zip(
        sides(comparison), [comparison.results[0], *comparison.results], strict=True
    ):
        rows = result.averages
        both = [row.baseline if arm is comparison.baseline else row.run for row in rows]
        steps = [row.step for row in rows]
        top.plot(
            steps, [e.value for e in both], color=color, marker=marker, markersize=4, label=arm.name
        )
        band(top, steps, [(e.low, e.high) for e in both], color)
    draw_differences(bottom, comparison, lambda result: result.averages)
    return by_step(figure, (top, bottom), comparison)


def draw_differences(
    panel: Axes, comparison: Comparison, rows: Callable[[ArmResult], list[Row]]
) -> None:
    """Draws run - baseline by step with its band, a line an arm."""
    panel.axhline(0, color=COLORS[0], linewidth=1)
    for result, (_, color, marker) in zip(comparison.results, sides(comparison)[1:], strict=True):
        steps = [row.step for row in rows(result)]
        differences = [row.difference for row in rows(result)]
        panel.plot(steps, [d.value for d in differences], color=color, marker=marker, markersize=4)
        band(panel, steps, [(d.low, d.high) for d in differences], color)


def speedup(comparison: Comparison, width: float) -> Figure:
    """The speed-up at every level of loss: steps, FLOPs and, where it was measured, time."""
    names = {"steps": "in steps", "flops": "in FLOPs", "seconds": "in wall time"}
    levels = [level for result in comparison.results for level in result.curve]
    shown = [n for n in names if any(level.costs[n].speed_up for level in levels)] or ["steps"]
    figure, axes = panels(width, [1.0] * len(shown), [f"speed-up\n{names[n]}" for n in shown])
    for name, panel in zip(shown, axes, strict=True):
        panel.axhline(1, color=COLORS[0], linewidth=1, label="baseline")
        bands = [
            draw_speedup(panel, result, name, color)
            for result, (_, color, _) in zip(comparison.results, sides(comparison)[1:], strict=True)
        ]
        low, high = panel.get_ylim()  # a few seeds' intervals would flatten the curves: cut
        margin = 0.5 * (high - low)
        for losses, ends, color in bands:
            band(panel, losses, ends, color)
        panel.set_ylim(max(0.0, low - margin), high + margin)
        panel.yaxis.set_major_formatter("{x:g}x")
    if levels:
        axes[-1].set_xlim(max(level.loss for level in levels), min(level.loss for level in levels))
    axes[-1].set_xlabel("validation loss reached (nats per token)")
    legend(figure, axes)
    return figure


def draw_speedup(
    panel: Axes, result: ArmResult, name: str, color: str
) -> tuple[list[float], list[tuple[Any, Any]], str]:
    """Draws an arm's line; returns its losses, intervals and colour for the band."""
    points = [(level.loss, both) for level in result.curve if (both := level.costs[name].speed_up)]
    losses = [loss for loss, _ in points]
    panel.plot(losses, [both.value for _, both in points], color=color, label=result.name)
    return losses, [(both.low, both.high) for _, both in points], color


def alignment(comparison: Comparison, width: float) -> Figure:
    """Weight, cosine and gradient norm by step, a line a run."""
    keys = {"grad_norm": "gradient norm"}
    if any(arm.has_teacher for arm in comparison.arms):
        keys = {"lambda": "weight lambda", "align_cosine": "cosine to\nthe teacher", **keys}
    return lines_by_step(comparison, width, keys)


def costs(comparison: Comparison, width: float) -> Figure:
    """Throughput and memory by step, a line a run whose clock counts."""
    keys = {"tokens_per_s": "tokens/s", "memory_gib": "memory (GiB)"}
    figure = lines_by_step(comparison, width, keys, comparison.untimed)
    for panel in figure.axes:
        panel.set_ylim(bottom=0)
    return figure


def lines_by_step(
    comparison: Comparison, width: float, keys: dict[str, str], without: Collection[int] = ()
) -> Figure:
    """Draws ``keys`` of the train lines, a panel each; runs with an id in ``without`` are not."""
    figure, axes = panels(width, [1.0] * len(keys), list(keys.values()))
    for key, panel in zip(keys, axes, strict=True):
        for arm, color, _ in sides(comparison):
            if key in TEACHERS and not arm.has_teacher:
                continue
            for run in arm.runs:
                if id(run) not in without:
                    label = None if arm.name in panel.get_legend_handles_labels()[1] else arm.name
                    panel.plot(*series(run, key), color=color, linewidth=1.1, label=label)
    return by_step(figure, axes, comparison)


def series(run: Run, key: str) -> tuple[list[int], list[float]]:
    """Returns the steps and the finite values of a key of the train lines."""
    lines = [line for line in run.train if is_number(line.get(key))]
    return [line["step"] for line in lines], [line[key] for line in lines]


CHARTS = {
    "validation_loss": validation,
    "speedup": speedup,
    "accuracy": accuracy,
    "alignment": alignment,
    "costs": costs,
}


def drawn(comparison: Comparison) -> list[str]:
    """Returns the names of ``CHARTS`` that there is something to draw for."""
    there = {
        "accuracy": comparison.scored,
        "costs": comparison.timed,
    }
    return [name for name in CHARTS if there.get(name, True)]


def save_png(comparison: Comparison, folder: Path) -> None:
    """Writes each chart as ``folder``/NAME.png; one that an earlier report left there goes."""
    names = drawn(comparison)
    for name, draw in CHARTS.items():
        path = folder / f"{name}.png"
        if name not in names:
            path.unlink(missing_ok=True)
            continue
        with matplotlib.rc_context(STYLE):
            draw(comparison, WIDE).savefig(path, dpi=150)


def svg(comparison: Comparison, name: str, width: float) -> str:
    """Returns one of ``CHARTS`` as an SVG element to stand in a page.

    Colours become CSS variables and text stays text; names within it are made its own, since a
    page holds several.
    """
    with matplotlib.rc_context(STYLE), io.StringIO() as file:
        CHARTS[name](comparison, width).savefig(file, format="svg", metadata={"Date": None})
        text = file.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    own = f"{name}-{width:g}-"
    text = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{own}", text)
    for color, variable in VARIABLES.items():
        text = text.replace(color, f"var({variable})")
    return re.sub(r'^<svg [^>]*?(viewBox="[^"]*")[^>]*>', r"<svg \1>", text, count=1)

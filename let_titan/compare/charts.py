"""The comparison's charts, by matplotlib: PNG files, and SVG that takes the page's colours."""

import io
import re
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from let_titan.compare.arms import Arm
from let_titan.compare.result import ArmResult, Comparison
from let_titan.runs import Run, is_number

COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#785ef0")
"""Of the baseline and the arms, after Okabe and Ito: told apart by the colour-blind, too."""

INK, MUTED, GRID, PAPER = "#1a1a1b", "#6b6b6c", "#d9d9da", "#fffffe"
MARKERS = "osD^vPX"
TEACHERS = ("lambda", "align_cosine")  # keys that mean nothing without one

VARIABLES = {
    INK: "--ink",
    MUTED: "--muted",
    GRID: "--grid",
    PAPER: "--paper",
    **{color: f"--arm{i}" for i, color in enumerate(COLORS)},
}
"""Colours of an SVG: the CSS variables that the page sets for light and dark."""

STYLE: dict[Any, Any] = {
    "font.size": 9,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": MUTED,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": GRID,
    "figure.facecolor": PAPER,
    "axes.facecolor": PAPER,
    "legend.frameon": False,
    "svg.fonttype": "none",
    "svg.hashsalt": "let_titan",
}

WIDE, NARROW = 8.5, 4.2  # inches
LETTERS = 12  # of a legend in an inch
PANEL = {WIDE: 1.9, NARROW: 1.7}  # a panel's height


def sides(comparison: Comparison) -> list[tuple[Arm, str, str]]:
    """Returns (arm, colour, marker), the baseline first."""
    arms = [comparison.baseline, *comparison.arms]
    return [(arm, COLORS[i % len(COLORS)], MARKERS[i % len(MARKERS)]) for i, arm in enumerate(arms)]


def panels(
    width: float, heights: Sequence[float], labels: Sequence[str]
) -> tuple[Figure, list[Axes]]:
    """Returns panels above one horizontal axis, each with its label; heights in ``PANEL``."""
    height = PANEL[width] * sum(heights) + 0.7
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = list(
        figure.subplots(len(heights), 1, sharex=True, height_ratios=heights, squeeze=False)[:, 0]
    )
    for panel, label in zip(axes, labels, strict=True):
        panel.set_ylabel(label)
        panel.margins(x=0.02)
    figure.align_ylabels(axes)
    return figure, axes


def by_step(figure: Figure, axes: Sequence[Axes], comparison: Comparison) -> Figure:
    """Marks the teacher's steps and finishes a chart whose axis is the step."""
    stops = {arm.runs[0].fact("let_plan.s_stop") for arm in comparison.arms if arm.has_teacher}
    for panel in axes:
        for stop in stops:
            panel.axvline(stop, color=MUTED, linewidth=1, linestyle=(0, (4, 3)))
    for stop in stops:
        where = axes[0].get_xaxis_transform()
        axes[0].text(
            stop,
            1.0,
            f"teacher leaves\n({stop:,})",
            transform=where,
            ha="center",
            va="bottom",
            color=MUTED,
            fontsize=8,
        )
    axes[-1].set_xlabel("optimiser step")
    legend(figure, axes)
    return figure


def legend(figure: Figure, axes: Sequence[Axes]) -> None:
    """Puts every label once above the panels."""
    handles: dict[str, Any] = {}
    for panel in axes:
        handles |= dict(zip(*reversed(panel.get_legend_handles_labels()), strict=True))
    arms = sorted(handles.items(), key=lambda item: COLORS.index(item[1].get_color()))
    widest = max(len(name) for name in handles) + 8  # with the line before it and the gap
    figure.legend(
        [handle for _, handle in arms],
        [name for name, _ in arms],
        loc="outside upper left",
        ncols=max(1, int(figure.get_figwidth() * LETTERS / widest)),
    )


def band(panel: Axes, x: Sequence[float], ends: Sequence[tuple[Any, Any]], color: str) -> None:
    """Fills between the ends of intervals, where there are any."""
    known = [(at, *both) for at, both in zip(x, ends, strict=True) if None not in both]
    if known:
        at, low, high = zip(*known, strict=True)
        panel.fill_between(at, low, high, color=color, alpha=0.18, linewidth=0)


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
    bottom.axhline(0, color=COLORS[0], linewidth=1)
    for result, (_, color, marker) in zip(comparison.results, sides(comparison)[1:], strict=True):
        rows = [row for row in result.rows if row.step > 0]
        steps = [row.step for row in rows]
        differences = [row.difference for row in rows]
        bottom.plot(steps, [d.value for d in differences], color=color, marker=marker, markersize=4)
        band(bottom, steps, [(d.low, d.high) for d in differences], color)
    return by_step(figure, (top, bottom), comparison)


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
    "alignment": alignment,
    "costs": costs,
}


def save_png(comparison: Comparison, folder: Path) -> None:
    """Writes each of ``CHARTS`` as ``folder``/NAME.png."""
    for name, draw in CHARTS.items():
        with matplotlib.rc_context(STYLE):
            draw(comparison, WIDE).savefig(folder / f"{name}.png", dpi=150)


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

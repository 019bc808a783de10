"""What the comparison's charts share: colours, panels, legend, bands."""

import itertools
from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from let_titan.compare.arms import Arm
from let_titan.compare.result import Comparison
from let_titan.compare.text import span

COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#b57900", "#2a8fd0", "#785ef0")
"""Of the baseline and the arms, after Okabe and Ito: told apart by the colour-blind, too. Their
yellow and light blue are darker here, so that all stand out from white by 3:1 (WCAG 1.4.11)."""

INK, MUTED, GRID, PAPER = "#1a1a1b", "#6b6b6c", "#d9d9da", "#fffffe"
MARKERS = "osD^vPX"

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
    stops = {arm.stops for arm in comparison.arms if arm.has_teacher}
    words = "teacher leaves" if len(stops) == 1 else "leaves"  # several must stand side by side
    for panel in axes:
        for stop in sorted(set(itertools.chain(*stops))):
            panel.axvline(stop, color=MUTED, linewidth=1, linestyle=(0, (4, 3)))
    for of_seeds in sorted(stops):
        where = axes[0].get_xaxis_transform()
        axes[0].text(
            (of_seeds[0] + of_seeds[-1]) / 2,
            1.0,
            f"{words}\n({span(of_seeds)})",
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

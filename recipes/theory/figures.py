"""The theory's charts."""

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from let_titan.compare.drawing import COLORS, MUTED, STYLE

Rows = Sequence[dict[str, Any]]


def draw_minima(minima: Rows, spread: float, path: Path) -> None:
    """kappa(k) for each depth: the formula as a line, the exact Hessian as points."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(7, 3.6), layout="constrained")
        axes = figure.subplots()
        depths = sorted({row["depth"] for row in minima})
        shades = matplotlib.colormaps["viridis"].resampled(len(depths) + 1)
        for shade, depth in enumerate(depths):
            rows = [row for row in minima if row["depth"] == depth]
            blocks = [row["k"] for row in rows]
            axes.plot(blocks, [row["kappa_predicted"] for row in rows], color=shades(shade), lw=1)
            measured = [row["kappa_measured"] for row in rows]
            axes.plot(blocks, measured, "o", color=shades(shade), ms=4, label=f"L = {depth}")
        axes.set(
            yscale="log",
            xlabel="blocks that hold the map, k (of L)",
            ylabel="condition number of the Hessian",
            title=f"At a minimum, target's singular values 1 to {1 / spread:g}: line = formula",
        )
        axes.legend(ncols=2)
        figure.savefig(path, dpi=130)


def draw_kappa(descent: Rows, path: Path) -> None:
    """The condition number at the end of each arm, all seeds, a panel a setting."""
    draw_panels(descent, path, "condition number at the end (log)", lambda row: row["kappa"])


def draw_steps(descent: Rows, path: Path) -> None:
    """Steps to the last level of each arm, all seeds, a panel a setting."""
    draw_panels(
        descent,
        path,
        "steps until the loss is 1e-6 of the first (log; no point: not reached)",
        lambda row: row["steps_to_1e-06"],
    )


def draw_panels(descent: Rows, path: Path, label: str, values: Any) -> None:
    """Points of every seed and a bar at their median, arms as rows."""
    settings = list(dict.fromkeys(setting_of(row) for row in descent))
    columns = min(4, len(settings))
    n_rows = -(-len(settings) // columns)
    with matplotlib.rc_context({**STYLE, "axes.grid": False}):
        figure = Figure(figsize=(2.6 * columns + 1.6, 2.5 * n_rows + 0.4), layout="constrained")
        panels = figure.subplots(n_rows, columns, sharex=True, sharey=True, squeeze=False).flatten()
        for axes, setting in zip(panels, settings, strict=False):
            draw_arms(axes, [row for row in descent if setting_of(row) == setting], values)
            axes.set_title(title(setting))
            axes.tick_params(labelbottom=True)
        for axes in panels[len(settings) :]:
            axes.set_axis_off()
        figure.supxlabel(label, fontsize=9)
        figure.savefig(path, dpi=130)


def draw_arms(axes: Axes, rows: Rows, values: Any) -> None:
    for place, row in enumerate(rows):
        found = [value for value in values(row) if value is not None]
        color = COLORS[0] if row["block"] is None else COLORS[1]
        axes.plot(found, [place] * len(found), "o", color=color, ms=4, alpha=0.6)
        if found:
            axes.plot(statistics.median(found), place, "|", color=color, ms=14, mew=2)
        axes.axhline(place, color=MUTED, lw=0.3, zorder=0)
    axes.set_xscale("log")
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_yticks(range(len(rows)), [row["arm"] for row in rows])
    axes.set_ylim(len(rows) - 0.5, -0.5)


def draw_along(courses: Rows, path: Path) -> None:
    """Loss and condition number by step, and the last spectrum; a column a setting."""
    settings = list(dict.fromkeys((row["depth"], row["spread"]) for row in courses))
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(4.0 * len(settings), 7.2), layout="constrained")
        panels = figure.subplots(3, len(settings), squeeze=False)
        for column, setting in enumerate(settings):
            rows = [row for row in courses if (row["depth"], row["spread"]) == setting]
            loss, kappa, spectrum = panels[:, column]
            for row, color in zip(rows, COLORS, strict=False):
                loss.plot(*zip(*row["loss"], strict=True), color=color, lw=1.2, label=row["arm"])
                kappa.plot(*zip(*row["kappa"], strict=True), color=color, lw=1.2)
                sizes = [abs(value) for value in row["spectrum"]]
                spectrum.plot(range(1, len(sizes) + 1), sizes, color=color, lw=1.2)
            for axes in (loss, kappa):
                axes.set_xscale("symlog", linthresh=1)
                axes.axvline(rows[0]["s_stop"], color=MUTED, lw=1, ls=(0, (4, 3)))
                axes.set_xlabel("step")
            for axes in (loss, kappa, spectrum):
                axes.set_yscale("log")
            loss.set(
                title=title((*setting, "residual")), ylabel="loss over the first", ylim=(1e-9, 5)
            )
            kappa.set_ylabel("condition number")
            spectrum.set(xlabel="eigenvalue's rank", ylabel="|eigenvalue| at the end")
        panels[0][0].legend(fontsize=7, loc="lower left")
        figure.savefig(path, dpi=130)


def setting_of(row: dict[str, Any]) -> tuple[int, float, str]:
    return row["depth"], row["spread"], row["start"]


def title(setting: tuple[int, float, str]) -> str:
    depth, spread, start = setting
    return f"L = {depth}, spread {spread:g}" + ("" if start == "residual" else f", {start}")

"""The probe's figures by block, and how the whole runs of each setting ended."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullFormatter

from let_titan.compare.drawing import COLORS, MUTED, STYLE

PROBED = {
    "grad_cosine": "cosine of the two gradients",
    "grad_ratio": "ratio of their norms",
    "cosine_last": "cosine to the teacher at last",
}
ENDS = {
    "k": "block k",
    "lambda_0": "lambda_0",
    "s_stop": "s_stop, share of the steps",
}


def draw(results: Mapping[str, Any], path: Path) -> None:
    """Above what the probe saw; below whole runs, what is proposed for each marked."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(8.5, 5.2), layout="constrained")
        above, below = figure.subplots(2, 3)
        evidence = results["probe"]["evidence"]
        blocks = [row["block"] for row in evidence]
        for axes, (name, title) in zip(above, PROBED.items(), strict=True):
            errors = [row["grad_cosine_error"] for row in evidence]
            values = [row[name] for row in evidence]
            axes.errorbar(
                blocks,
                values,
                yerr=errors if name == "grad_cosine" else None,
                color=COLORS[0],
                fmt="o-",
                ms=4,
                lw=1,
            )
            axes.axhline(0, color=MUTED, lw=0.8)
            axes.set(title=f"probe: {title}", xlabel="block k")
            axes.title.set_fontsize(9)
            ticks(axes, blocks)
        for axes, (name, label) in zip(below, ENDS.items(), strict=True):
            draw_ends(axes, results, name)
            axes.set_xlabel(label)
        below[0].set_ylabel("whole run - baseline, nats per token")
        figure.savefig(path, dpi=130)


def draw_ends(axes: Axes, results: Mapping[str, Any], name: str) -> None:
    """A point an arm; the band is what seeds make of a run that is equal to the best arm."""
    ended = results["ends"][name]["differences"]
    verdict = next((row for row in results["verdicts"] if row["setting"] == name), None)
    values = sorted(ended)
    axes.plot(values, [ended[value] for value in values], "o-", color=COLORS[1], ms=4, lw=1)
    axes.axhline(0, color=MUTED, lw=0.8)
    if verdict is not None:
        best = ended[verdict["best"]]
        axes.axhspan(best, best + verdict["told_apart"], color=COLORS[1], alpha=0.12, lw=0)
        if verdict["proposed"] is not None:
            axes.axvline(verdict["proposed"], color=COLORS[0], lw=1.2, ls=(0, (4, 3)))
        proposed = "later" if verdict["proposed"] is None else f"{verdict['proposed']:g}"
        axes.set_title(f"proposed: {proposed}; {verdict['outcome']}", fontsize=9)
    if name != "k":
        axes.set_xscale("log")
    ticks(axes, values)


def ticks(axes: Axes, values: list[float]) -> None:
    axes.xaxis.set_major_locator(FixedLocator(values))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())

"""The charts: the runs by step, and three reasons."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from let_titan.compare.drawing import COLORS, MUTED, STYLE

LOOKED_AT = {
    "cosine": "cosine of block k to the teacher",
    "grad_cosine": "cosine of the two gradients",
    "grad_ratio": "norm of alignment's over NLL's",
}
PARTS = {"any": "any token", "same_id": "the token's id", "own": "context"}


def draw_looks(results: Mapping[str, Any], path: Path) -> None:
    """What the trainer's diagnostics saw of each LET arm, step by step."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(9.5, 3.2), layout="constrained")
        panels = figure.subplots(1, len(LOOKED_AT))
        for axes, (name, title) in zip(panels, LOOKED_AT.items(), strict=True):
            for (arm, looks), color in zip(results["looks"].items(), COLORS[1:], strict=False):
                points = [(look["step"], look[name]) for look in looks if look[name] is not None]
                axes.plot(*zip(*points, strict=True), color=color, lw=1.2, label=arm)
            axes.axhline(0, color=MUTED, lw=0.8)
            axes.set_title(title, fontsize=9)
            axes.set_xlabel("optimiser step")
        panels[2].set_yscale("log")
        panels[2].legend(fontsize=8, loc="lower left")
        figure.savefig(path, dpi=130)


def draw_reasons(results: Mapping[str, Any], path: Path) -> None:
    """What the cosine consists of; what can be read off block k; what gradients are worth."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(10.5, 3.6), layout="constrained")
        parts, readouts, gradients = figure.subplots(1, 3)
        draw_parts(parts, results)
        draw_readouts(readouts, results)
        draw_gradients(gradients, results)
        figure.savefig(path, dpi=130)


def draw_parts(axes: Axes, results: Mapping[str, Any]) -> None:
    """Bars of the own token's cosine, cut where another token's ends: each arm on its targets."""
    bars = {
        arm: student["closeness"]["centred" if "centred" in arm else "raw"]
        for arm, student in results["students"].items()
        if arm.startswith("LET")
    }
    bars["a table of ids, raw"] = {**results["teacher"]["ceilings"]["raw"]}
    bars["a table of ids, raw"]["own"] = bars["a table of ids, raw"]["same_id"]
    axes.set_axisbelow(True)
    below = [0.0] * len(bars)
    for (part, title), color in zip(PARTS.items(), COLORS, strict=False):
        tops = [found[part] for found in bars.values()]
        heights = [top - low for top, low in zip(tops, below, strict=True)]
        axes.barh(list(bars), heights, left=below, color=color, label=title, height=0.6)
        below = tops
    axes.invert_yaxis()
    axes.set_title("cosine to the teacher, and what it is of", fontsize=9)
    axes.legend(fontsize=8, loc="upper right")


def draw_readouts(axes: Axes, results: Mapping[str, Any]) -> None:
    bars = {arm: student["readout"] for arm, student in results["students"].items()}
    bars["the teacher"] = results["teacher"]["readout"]
    colors = [COLORS[0] if arm.startswith("LET") else COLORS[2] for arm in bars]
    axes.scatter(list(bars.values()), range(len(bars)), color=colors, s=24)
    for place, value in enumerate(bars.values()):
        axes.text(value, place - 0.15, f"{value:.2f}", ha="center", va="bottom", fontsize=8)
    axes.set_axisbelow(True)
    axes.set_yticks(range(len(bars)), list(bars))
    axes.set_ylim(-0.8, len(bars) - 0.5)
    axes.set_xlim(0.85 * min(bars.values()), 1.08 * max(bars.values()))
    axes.invert_yaxis()
    axes.set_title("next token read off block k, NLL", fontsize=9)


def draw_gradients(axes: Axes, results: Mapping[str, Any]) -> None:
    steps = list(results["gradients"])
    names = list(results["gradients"][steps[0]])
    for step, color in zip(steps, COLORS, strict=False):
        found = [results["gradients"][step][name] for name in names]
        axes.errorbar(
            [value["mean"] for value in found],
            range(len(names)),
            xerr=[value["sd"] for value in found],
            fmt="o",
            ms=4,
            lw=1,
            color=color,
            label=f"step {step}",
        )
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.axvline(0, color=MUTED, lw=0.8)
    axes.set_title("cosine to the held-out NLL's gradient", fontsize=9)
    axes.legend(fontsize=8)

"""The transfer's charts."""

from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from let_titan.compare.drawing import COLORS, MUTED, STYLE
from transfer.outcome import MEASURES
from transfer.pairs import LOSS, STEPS

ARMS = ("baseline", "LET")


def draw_curves(results: dict[str, Any], path: Path) -> None:
    """The domain's validation loss while it is learned: every seed a line, a panel a pair."""
    domains, kinds = results["held_out"], (STEPS, LOSS)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(3.9 * len(domains), 5.6), layout="constrained")
        panels = figure.subplots(2, len(domains), sharex=True, squeeze=False)
        for axes_row, equal in zip(panels, kinds, strict=True):
            for axes, domain in zip(axes_row, domains, strict=True):
                for run in results["fine_tuning"]:
                    if run["domain"] == domain and equal in run["equal"]:
                        color = COLORS[ARMS.index(run["arm"])]
                        axes.plot(*zip(*run["curve"], strict=True), color=color, lw=1, alpha=0.8)
                axes.set_title(f"{domain}, at {equal}")
        for arm, color in zip(ARMS, COLORS, strict=False):
            panels[0][-1].plot([], [], color=color, label=f"{arm}, each seed")
        panels[0][-1].legend()
        figure.supxlabel("steps of fine-tuning", fontsize=9)
        figure.supylabel("validation loss on the domain, nats per token", fontsize=9)
        figure.savefig(path, dpi=130)


def draw_differences(results: dict[str, Any], path: Path) -> None:
    """LET - baseline of every measure with its 95 % interval, seeds as points."""
    with matplotlib.rc_context({**STYLE, "axes.grid": False}):
        figure = Figure(
            figsize=(8.5, 0.3 * len(results["comparisons"]) + 0.8), layout="constrained"
        )
        panels = figure.subplots(len(MEASURES) // 2, 2, squeeze=False).flatten()
        for axes, (measure, title) in zip(panels, MEASURES.items(), strict=True):
            rows = [row for row in results["comparisons"] if row["measure"] == measure]
            for place, row in enumerate(rows):
                draw_difference(axes, place, row)
            axes.axvline(0, color=MUTED, lw=0.8)
            axes.set_yticks(range(len(rows)), [f"{row['domain']}, {row['equal']}" for row in rows])
            axes.set_ylim(len(rows) - 0.5, -0.5)
            axes.set_title(title, fontsize=9)
        figure.supxlabel("LET - baseline (left of the line: LET is better)", fontsize=9)
        figure.savefig(path, dpi=130)


def draw_difference(axes: Any, place: int, row: dict[str, Any]) -> None:
    both = zip(row["LET"], row["baseline"], strict=True)
    points = [let - baseline for let, baseline in both if None not in (let, baseline)]
    axes.plot(points, [place] * len(points), "o", color=COLORS[1], ms=4, alpha=0.6)
    if row["difference"] and row["difference"]["low"] is not None:
        ends = [row["difference"]["low"], row["difference"]["high"]]
        axes.plot(ends, [place, place], color=COLORS[0], lw=1.5)

"""The study's charts."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from let_titan.compare.drawing import COLORS, MARKERS, MUTED, STYLE, band
from let_titan.compare.stats import mean
from series.findings import ArmOnSet, Findings
from series.study import Record, Study


def draw_differences(study: Study, found: Findings, path: Path) -> None:
    """Final accuracy minus the baseline's with its interval, sets as rows, a panel a student."""
    with matplotlib.rc_context({**STYLE, "axes.grid": False}):
        height = 0.45 * len(found.teachers) + 1.3
        figure = Figure(figsize=(4.2 * len(found.arms), height), layout="constrained")
        panels = figure.subplots(1, len(found.arms), sharey=True, squeeze=False)[0]
        for axes, (student, rows) in zip(panels, found.arms.items(), strict=True):
            draw_rows(axes, study, rows)
            axes.set_title(f"{student} as the student")
        names = list(found.teachers)
        panels[0].set_yticks(range(len(names)), names)
        panels[0].set_ylim(len(names) - 0.5, -0.5)
        figure.supxlabel("final test accuracy minus the baseline's, points, 95 %", fontsize=9)
        figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper left", ncols=4)
        figure.savefig(path, dpi=130)


def draw_rows(axes: Axes, study: Study, rows: Sequence[ArmOnSet]) -> None:
    axes.axvline(0, color=MUTED, lw=1)
    others = [arm.name for arm in study.arms[1:]]
    for place, arm in enumerate(others):
        of_arm = [row for row in rows if row.arm == arm]
        values = [100 * row.difference.value for row in of_arm]
        halves = [
            100 * (row.difference.value - row.difference.low)
            if row.difference.low is not None
            else 0.0
            for row in of_arm
        ]
        at = [study.sets.index(row.set) + 0.16 * (2 * place - len(others) + 1) for row in of_arm]
        style: dict[str, Any] = {"fmt": MARKERS[place + 1], "color": COLORS[place + 1]}
        axes.errorbar(values, at, xerr=halves, label=arm, ms=4, lw=1, **style)


def draw_curves(study: Study, records: Sequence[Record], path: Path) -> None:
    """Mean test accuracy by step with its interval over seeds, a column a set, a row a student."""
    students, sets = list(study.students), list(study.sets)
    with matplotlib.rc_context(STYLE):
        size = (2.1 * len(sets) + 0.8, 1.9 * len(students) + 0.9)
        figure = Figure(figsize=size, layout="constrained")
        grid = figure.subplots(len(students), len(sets), sharex=True, squeeze=False)
        for row, student in zip(grid, students, strict=True):
            row[0].set_ylabel(f"{student}: test accuracy")
            for axes, name in zip(row, sets, strict=True):
                of_set = [r for r in records if (r.get("student"), r["set"]) == (student, name)]
                draw_arms(axes, study, of_set)
        for axes, name in zip(grid[0], sets, strict=True):
            axes.set_title(name)
        figure.supxlabel("optimiser step (line: the teacher leaves LET)", fontsize=9)
        figure.legend(*grid[0][0].get_legend_handles_labels(), loc="outside upper left", ncols=4)
        figure.savefig(path, dpi=130)


def draw_arms(axes: Axes, study: Study, records: Sequence[Record]) -> None:
    axes.axvline(study.training.s_stop, color=MUTED, lw=1, linestyle=(0, (4, 3)))
    axes.set_ylim(0, 1.03)  # of few seeds an interval may go beyond
    for place, arm in enumerate(study.arms):
        curves = np.array([r["curve"] for r in records if r["arm"] == arm.name])
        if curves.size:
            steps = curves[0, :, 0].tolist()
            estimates = [mean(values.tolist()) for values in curves[:, :, 1].T]
            color = COLORS[place]
            axes.plot(steps, [e.value for e in estimates], color=color, lw=1.2, label=arm.name)
            band(axes, steps, [(e.low, e.high) for e in estimates], color)

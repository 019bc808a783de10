"""The diagnostics by step, a line a teacher."""

from collections.abc import Mapping
from pathlib import Path
from statistics import fmean
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from bad_teacher_look.figures import Trials
from let_titan.compare.drawing import COLORS, MUTED, STYLE

Look = Mapping[str, Any]


def block_cosine(look: Look, block: int) -> float:
    return float(look["block_cosine"][0][block - 1])


PANELS = {
    "block k's cosine to the teacher": block_cosine,
    "cosine of the two gradients": lambda look, _: look["grad_cosine"][0],
    "ratio of their norms": lambda look, _: look["grad_ratio"][0],
}


def draw(trials: Trials, path: Path) -> None:
    """Means over seeds; the first look of a run, before any step, included."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(10.5, 3.4), layout="constrained")
        for axes, (title, value) in zip(figure.subplots(1, 3), PANELS.items(), strict=True):
            for color, (teacher, seeds) in zip(COLORS, trials.items(), strict=False):
                steps = [step for step, _ in seeds[0].looks]
                means = [
                    fmean(value(trial.looks[i][1], trial.block) for trial in seeds)
                    for i in range(len(steps))
                ]
                axes.plot(steps, means, color=color, lw=1.3, label=teacher)
            axes.axhline(0, color=MUTED, lw=0.8)
            axes.set(title=title, xlabel="step")
            axes.title.set_fontsize(9)
        figure.axes[0].legend(fontsize=8)
        figure.savefig(path, dpi=130)

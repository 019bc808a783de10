"""The chart of recipes/scaling.py: LET's overhead while the teacher is there, three ways."""

from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullFormatter, PercentFormatter

from let_titan.compare.drawing import COLORS, MARKERS, STYLE

Rows = list[dict[str, Any]]


TEACHERS = ("SmolLM-135M", "Llama-3.2-1B", "Llama-3.1-8B")
"""In the order of their colours, the same in all panels."""


def draw(results: dict[str, Rows], path: Path) -> None:
    """Draws overhead over the student's size, the sequence's length and the pipeline's ranks."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(10, 3.4), layout="constrained")
        size, length, depth = figure.subplots(1, 3)
        size.set_ylabel("student's time that the teacher adds, at least")
        lines(size, results["by_size"], "student_parameters")
        size.set(xscale="log", yscale="log", xlabel="student's parameters")
        size.set_title("2,048 tokens a sequence")
        size.xaxis.set_major_formatter(FuncFormatter(lambda n, _: f"{n / 1e9:g}B"))
        size.yaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{100 * share:g}%"))
        length.set_title("longer sequences")
        lines(length, results["by_length"], "seq_len")
        length.set(xscale="log", xlabel="tokens a sequence", ylim=0)
        ticks(length, sorted({row["seq_len"] for row in results["by_length"]}))
        for readers in ("owner", "all"):
            rows = [row for row in results["by_depth"] if row["readers"] == readers]
            lines(depth, rows, "pipeline_parallel_degree")
        depth.set(xlabel="pipeline's ranks", ylim=(0, 0.3))  # room for the legend
        depth.set_title("tensor parallelism of 8, a pipeline")
        ticks(depth, sorted({row["pipeline_parallel_degree"] for row in results["by_depth"]}))
        for axes in (length, depth):
            axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        figure.savefig(path, dpi=130)


def lines(axes: Axes, rows: Rows, x: str) -> None:
    """Draws a line over ``x`` for each teacher, and names the student where there is one.

    Where all ranks of a pipeline read for the teacher they are dotted, with one name together.
    """
    shared = rows[0]["readers"] == "all"
    for i, teacher in enumerate(TEACHERS):
        points = [row for row in rows if row["teacher"] == teacher]
        if not points:
            continue
        students = {row["student"] for row in points}
        label = f"{min(students)} under {teacher}" if len(students) == 1 else teacher
        axes.plot(
            [row[x] for row in points],
            [row["overhead_in_let_phase"] for row in points],
            marker=MARKERS[i],
            color=COLORS[i],
            ls=":" if shared else "-",
            ms=4,
            lw=1.2,
            label=None if shared else label,
        )
    if shared:
        axes.plot([], [], color="gray", ls=":", lw=1.2, label="all ranks read for the teacher")
    axes.legend(fontsize=8, loc="upper left" if shared else "best")


def ticks(axes: Axes, values: list[int]) -> None:
    axes.xaxis.set_major_locator(FixedLocator(values))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda n, _: f"{n:,.0f}"))
    axes.xaxis.set_minor_formatter(NullFormatter())

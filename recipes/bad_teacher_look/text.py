"""The report on bad teachers in Markdown."""

from collections.abc import Mapping
from typing import Any

from bad_teacher_look.figures import FIGURES


def as_markdown(results: Mapping[str, Any]) -> str:
    """Returns report.md: what was asked, and a table of figures by teacher."""
    versions = ", ".join(f"{name} {results['versions'][name]}" for name in ("python", "torch"))
    seeds = ", ".join(map(str, results["seeds"]))
    return "\n".join(
        [
            "# Do the diagnostics notice a bad teacher?",
            "",
            f"`python recipes/notice_bad_teacher.py` ({versions}; {results['hardware']['cpu']}, "
            f"one thread); seeds {seeds}; {results['steps']} steps with the teacher throughout, "
            f"block {results['block']}, lambda {results['lambda_0']:g}.",
            "",
            f"Asked beforehand: {results['hypothesis']}",
            "",
            f"Deciding: {results['metric']}",
            "",
            f"| teacher | {' | '.join(FIGURES.values())} | auto stop's step, by seed |",
            f"|---|{'---|' * (len(FIGURES) + 1)}",
            *(table_row(teacher, row) for teacher, row in results["figures"].items()),
            "",
            "In brackets: what the difference to the good teacher's figure says, seed for seed.",
            "",
            "![Cosine to each teacher, cosine and ratio of the gradients](looks.png)",
            "",
        ]
    )


def table_row(teacher: str, row: Mapping[str, Any]) -> str:
    stops = ", ".join("none" if step is None else str(step) for step in row["auto_stop"])
    cells = [cell(row[figure]) for figure in FIGURES]
    return f"| {teacher} | {' | '.join(cells)} | {stops} |"


def cell(figure: Mapping[str, Any]) -> str:
    value = f"{figure['mean']['value']:+.4f}"
    if "difference" not in figure:
        return value
    difference = figure["difference"]
    interval = (
        ""
        if difference["low"] is None
        else f", {difference['low']:+.4f} to {difference['high']:+.4f}"
    )
    return f"{value} ({figure['says']}{interval})"

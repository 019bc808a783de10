"""The paper's table: checkpoints as rows, tasks as columns, in percent."""

import json
from pathlib import Path
from statistics import fmean
from typing import Any

from rich.console import Console
from rich.table import Table

from let_titan.evaluate.models import Model
from let_titan.runs import is_number

Results = dict[str, dict[str, Any]]

WIDE = 160
"""Characters in a line that nine tasks take."""


def headline(result: dict[str, Any]) -> float:
    """Returns acc_norm where the task has it, else acc."""
    return result[result["metric"]]


def average(results: Results) -> float:
    """Returns the mean over the tasks, each counting alike, as the paper's."""
    return fmean(headline(result) for result in results.values())


def cells(model: Model, results: Results) -> list[str]:
    """Returns a row: name, step, tasks with their standard errors, average."""
    figures = [cell(result) for result in results.values()]
    step = "" if model.step is None else f"{model.step:,}"
    return [model.name, step, *figures, f"{100 * average(results):.1f}"]


def cell(result: dict[str, Any]) -> str:
    """Returns a task's figure with its standard error, if there is one."""
    figure, error = f"{100 * headline(result):.1f}", result["stderr"]
    return f"{figure} ± {100 * error:.1f}" if is_number(error) else figure


def header(tasks: list[str]) -> list[str]:
    return ["model", "step", *tasks, "average"]


def show(rows: list[tuple[Model, Results]], console: Console) -> None:
    """Prints the table, transposed where the terminal is too narrow for nine tasks in a row."""
    lines = [header(list(rows[0][1])), *(cells(*row) for row in rows)]
    if console.width < WIDE:
        lines = [list(line) for line in zip(*lines, strict=True)]
    table = Table(*lines[0], title="accuracy, %")
    for line in lines[1:]:
        table.add_row(*line)
    console.print(table)


def markdown(rows: list[tuple[Model, Results]], settings: dict[str, Any]) -> str:
    """Returns the table with what it was made by beneath it."""
    names = header(list(rows[0][1]))
    lines = [names, ["---"] * len(names), *(cells(*row) for row in rows)]
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    bos = ", ".join(
        f"{model.name}: {'with' if next(iter(results.values()))['add_bos'] else 'without'} BOS"
        for model, results in rows
    )
    versions = ", ".join(f"{name} {value}" for name, value in settings["versions"].items())
    norm = [task for task, x in rows[0][1].items() if x["metric"] == "acc_norm"]
    limit = settings["limit"]
    items = "all items" if limit is None else f"the first {limit} items of each task"
    return (
        f"# Accuracy, %\n\n{table}\n\nOne-shot, {items}, seed {settings['seed']}; "
        f"± one standard error. acc_norm for {', '.join(norm) or 'none'}, acc for the others. "
        f"{bos}. {settings['dtype']}; {versions}.\n"
    )


def write(rows: list[tuple[Model, Results]], settings: dict[str, Any], out: Path) -> None:
    """Writes accuracy.json and accuracy.md."""
    content = {
        "settings": settings,
        "models": [
            {
                "name": model.name,
                "step": model.step,
                "digest": model.digest,
                "tasks": results,
                "average": average(results),
            }
            for model, results in rows
        ],
    }
    (out / "accuracy.json").write_text(json.dumps(content, indent=2) + "\n")
    (out / "accuracy.md").write_text(markdown(rows, settings))

"""python -m let_titan.watch RUN [RUN...] [--baseline RUN]

Follows runs in the terminal by reading their folders: it works beside a run on the same machine,
over ssh or on a shared disk, and goes on through a kill and a resume.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from let_titan.arguments import positive
from let_titan.runs import Line, is_number, starts_of
from let_titan.watched import EVERY, Watched, duration


def number(value: Any, form: str) -> str:
    return format(value, form) if is_number(value) else "-"


def against(run: list[Line], baseline: list[Line], key: str) -> str:
    """Returns the last value of ``key`` and its difference at the last step that both logged."""
    value = number(run[-1].get(key), ".4f") if run else "-"
    other = {line["step"]: line.get(key) for line in baseline}
    for line in reversed(run):
        ours, theirs = line.get(key), other.get(line["step"])
        if is_number(ours) and is_number(theirs):
            where = "" if line is run[-1] else f" at {line['step']:,}"
            return f"{value} ({ours - theirs:+.4f}{where})"
    return value


def column(run: Watched, baseline: Watched | None, now: float) -> dict[str, str | Text]:
    """Returns what is shown of one run."""
    last, step, steps = run.last, run.last.get("step", 0), run.steps
    other = baseline if baseline is not None and baseline is not run else None
    resumes = [start["step"] for start in starts_of(run.summary) if start["step"]]
    checkpoint = run.checkpoint()
    return {
        "state": run.state(now),
        "step": f"{step:,} of {steps:,} ({step / steps:.0%})" if steps else "-",
        "resumed at": ", ".join(f"{start:,}" for start in resumes[-3:]) or "-",
        "loss": against(run.train, other.train if other else [], "loss"),
        "validation loss": against(run.validation, other.validation if other else [], "val_loss"),
        "validated at": number(run.validation[-1]["step"], ",") if run.validation else "-",
        "lambda": number(last.get("lambda"), ".4f") if run.has_teacher else "-",
        "cosine": number(last.get("align_cosine"), ".4f"),
        "gradient norm": number(last.get("grad_norm"), ".3f"),
        "tokens/s": number(last.get("tokens_per_s"), ",.0f"),
        "memory, GiB": number(last.get("memory_gib"), ".2f"),
        "skipped steps": f"{run.skipped:,}",
        "elapsed": duration(last["elapsed_s"]) if is_number(last.get("elapsed_s")) else "-",
        "time left": run.time_left(other),
        "last checkpoint": "-" if checkpoint is None else f"step {checkpoint:,}",
    }


def view(runs: Sequence[Watched], baseline: Watched | None, now: float) -> Group:
    """Returns a table with a run a column, which fits a narrow terminal, and what is to be said.

    What no run has is left out, so that many runs fit a low one.
    """
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("", no_wrap=True)
    for run in runs:
        table.add_column(run.name, overflow="fold")
    columns = [column(run, baseline, now) for run in runs]
    for key in columns[0]:
        if all(str(cells[key]) in ("-", "0") for cells in columns):
            continue
        table.add_row(Text(key, style="dim"), *(cells[key] for cells in columns))
    told = [baseline_note(baseline)] if baseline is not None else []
    also = [] if baseline is None or baseline in runs else [baseline]
    told += [f"{run.name}: {run.problem}" for run in (*runs, *also) if run.problem]
    return Group(table, *(Text(each, style="table.caption") for each in told))


def baseline_note(baseline: Watched) -> str:
    if not baseline.summary:
        return f"{baseline.folder}, to compare with, is {baseline.exit_state}"
    return f"in brackets: against {baseline.name} at the same step"


def find_baseline(runs: Sequence[Watched]) -> Watched | None:
    """Returns the one run without a teacher among several."""
    plain = [run for run in runs if run.summary and not run.has_teacher]
    return plain[0] if len(plain) == 1 and len(runs) > 1 else None


def follow(
    runs: Sequence[Watched], baseline: Watched | None, console: Console, once: bool, every: float
) -> None:
    """Shows the runs until all are completed; ``once``: as they are now."""
    with Live(console=console, auto_refresh=False) as live:
        while True:
            for run in {*runs, *([baseline] if baseline else [])}:
                run.refresh()
            live.update(view(runs, baseline or find_baseline(runs), time.time()), refresh=True)
            if once or all(run.done for run in runs):
                return
            time.sleep(every)


def main(args: list[str] | None = None) -> int:
    """Watches; returns 0, or 2 after a sentence on stderr."""
    parser = argparse.ArgumentParser(
        prog="let_titan.watch",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="job.dump_folder")
    parser.add_argument(
        "--baseline",
        type=Path,
        help="the run to compare with; else the one without a teacher among RUN",
    )
    parser.add_argument("--once", action="store_true", help="print once and end")
    parser.add_argument("--every", type=positive, default=EVERY, help="seconds between two looks")
    options = parser.parse_args(args)
    console = Console()
    once = options.once or not console.is_terminal
    given = [*options.runs, *([options.baseline] if options.baseline else [])]
    missing = [path for path in given if not path.is_dir()]
    if missing and once:
        print(f"let_titan.watch: {missing[0]} is no folder: give job.dump_folder.", file=sys.stderr)
        return 2
    runs = [Watched(path) for path in options.runs]
    named = next((r for r in runs if r.folder == options.baseline), None)
    baseline = named or (Watched(options.baseline) if options.baseline else None)
    with suppress(KeyboardInterrupt):
        follow(runs, baseline, console, once, options.every)
    return 0


if __name__ == "__main__":
    sys.exit(main())

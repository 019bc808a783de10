"""python -m let_titan.watch RUN [RUN...] [--baseline RUN]

Follows runs in the terminal by reading their folders: it works beside a run on the same machine,
over ssh or on a shared disk, and goes on through a kill and a resume.
"""

import argparse
import json
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from let_titan.arguments import positive
from let_titan.checkpoint.folders import whole_checkpoints
from let_titan.runs import (
    COMPLETED,
    FILES,
    WRITTEN_ANEW,
    Line,
    is_number,
    read_lines,
    sort_lines,
    starts_of,
)

EVERY = 2.0  # seconds between two looks
PACE = 10  # windows over which the time left is reckoned
SILENT = 10  # windows without a line after which a run is called silent


class Watched:
    """A run's folder, read again whenever one of its files changes.

    Args:
        folder: the run's; it need not exist yet.

    Attributes:
        problem: why what is there cannot be read, in a sentence.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.train: list[Line] = []
        self.validation: list[Line] = []
        self.skipped = 0
        self.summary: dict[str, Any] = {}
        self.problem: str | None = None
        self._seen: Any = None
        self._written = 0.0  # when metrics.jsonl was, in seconds since the epoch

    def refresh(self) -> None:
        """Reads what is new; what cannot be read now (a file being replaced) is left as it was."""
        files = [self.folder / name for name in FILES]
        try:
            stamps = [(s.st_ino, s.st_size, s.st_mtime_ns) for s in (f.stat() for f in files)]
            if stamps == self._seen:
                return
            lines = read_lines(files[0])
            summary = json.loads(files[1].read_text(encoding="utf-8"))
            if not isinstance(summary, dict):
                raise ValueError(f"{files[1]} holds no summary: {WRITTEN_ANEW}")
        except json.JSONDecodeError as error:
            # Copied over a network it may be half there for a moment; the last one is shown on.
            if not self.summary:
                self.problem = f"{files[1]} is not JSON ({error.msg})."
            return
        except (OSError, ValueError) as error:
            self.problem = str(error) if isinstance(error, ValueError) else self.problem
            return
        self.problem, self.summary = None, summary
        self._seen, self._written = stamps, stamps[0][-1] / 1e9
        self.train, self.validation = sort_lines(lines)
        self.skipped = sum("nonfinite" in line for line in lines)

    @property
    def name(self) -> str:
        return self.folder.resolve().name

    @property
    def exit_state(self) -> str:
        return self.summary.get("exit_state", "unreadable" if self.problem else "not started")

    @property
    def done(self) -> bool:
        return self.exit_state == COMPLETED

    @property
    def has_teacher(self) -> bool:
        return bool(self.summary.get("let_plan"))

    @property
    def last(self) -> Line:
        """The last train line, {} without one."""
        return self.train[-1] if self.train else {}

    @property
    def steps(self) -> int | None:
        return self._config("training").get("steps")

    def _config(self, section: str) -> dict[str, Any]:
        return self.summary.get("config", {}).get(section, {})

    @property
    def s_stop(self) -> int:
        """The last step with a teacher, 0 without one."""
        return (self.summary.get("let_plan") or {}).get("s_stop", 0)

    def pace(self) -> float | None:
        """Returns seconds a step over the last windows since the run was started last.

        Windows with the teacher are not mixed with those after it, which are faster.
        """
        start, under = starts_of(self.summary)[-1]["step"], self.last.get("step", 0) <= self.s_stop
        lines = [line for line in self.train if line["step"] > start]
        windows = [
            (before, line)
            for before, line in pairwise(lines)
            if is_number(before.get("elapsed_s"))
            and is_number(line.get("elapsed_s"))
            and (under or before["step"] >= self.s_stop)
        ][-PACE:]
        if not windows:
            return None
        seconds = sum(line["elapsed_s"] - before["elapsed_s"] for before, line in windows)
        return seconds / sum(line["step"] - before["step"] for before, line in windows)

    def time_left(self, baseline: "Watched | None") -> str:
        """Returns the time to the last step: at the present pace, from s_stop on at the baseline's.

        Without a baseline the time after the teacher is not known yet: "up to".
        """
        pace, steps = self.pace(), self.steps
        if pace is None or steps is None or self.exit_state != "running":
            return "-"
        left = steps - self.last["step"]
        under = min(left, max(0, self.s_stop - self.last["step"]))  # the teacher, still
        if under in (0, left):
            return duration(left * pace)
        after = baseline.pace() if baseline is not None else None
        if after is None:
            return f"up to {duration(left * pace)}"
        return duration(under * pace + (left - under) * after)

    def state(self, now: float) -> Text:
        """Returns the exit state, or for how long a run that should be writing has been silent."""
        if self.exit_state != "running":
            return Text(self.exit_state, style="green" if self.done else "bold yellow")
        silence = now - self._written
        window = (self.pace() or 0) * self._config("metrics").get("log_freq", 1)
        if window and silence > max(SILENT * window, 10 * EVERY):
            return Text(f"silent for {duration(silence)}", style="bold red")
        return Text("running", style="green")

    def checkpoint(self) -> int | None:
        """Returns the step of the last whole checkpoint."""
        folder = self.folder / self._config("checkpoint").get("folder", "")
        return max(whole_checkpoints(folder), default=None)


def duration(seconds: float) -> str:
    """Formats seconds as "2 d 3 h", "3 h 04 min", "4 min 05 s" or "5 s"."""
    minutes, s = divmod(round(seconds), 60)
    hours, m = divmod(minutes, 60)
    if hours >= 24:
        return f"{hours // 24} d {hours % 24} h"
    if hours:
        return f"{hours} h {m:02} min"
    return f"{m} min {s:02} s" if m else f"{s} s"


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

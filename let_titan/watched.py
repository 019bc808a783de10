"""A run's folder while it grows: its lines, its state, its pace and the time that is left."""

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

from rich.text import Text

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

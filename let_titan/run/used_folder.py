"""What an earlier start left in a run's folder: cut to where the run goes on, or set aside."""

import json
import time
from collections.abc import Callable
from pathlib import Path

from let_titan.disk import replace_text
from let_titan.errors import writing
from let_titan.runs import CLOCK, EVALUATIONS, FILES, Line, read_lines


def set_aside(folder: Path) -> None:
    """Renames what a run that left no checkpoint wrote, e.g. to metrics.N.jsonl, summary.N.json.

    One N for all, so that the figures keep the config they are of.
    """
    stamp = time.time_ns()
    for name in (*FILES, EVALUATIONS, CLOCK):
        path = folder / name
        if path.exists():
            with writing(path):
                path.replace(path.with_name(f"{path.stem}.{stamp}{path.suffix}"))


def cut(path: Path, keeps: Callable[[Line], bool]) -> list[Line]:
    """Takes out of a file of JSON lines what ``keeps`` does not; returns the rest, [] without one.

    A reader sees the old file or the new one, never half of it.
    """
    if not path.exists():
        return []
    lines = [line for line in read_lines(path) if keeps(line)]
    replace_text(path, "".join(json.dumps(line) + "\n" for line in lines))
    return lines

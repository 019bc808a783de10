"""What an earlier start left in a run's folder: cut to where the run resumes, or set aside."""

import json
import time
from collections.abc import Callable
from pathlib import Path

from let_titan.disk import replace_text
from let_titan.errors import writing
from let_titan.runs import CLOCK, EVALUATIONS, FILES, Line, read_lines


def set_aside(folder: Path) -> None:
    """Renames the files of a run that left no checkpoint, e.g. to metrics.N.jsonl, summary.N.json.

    All get one N, so that figures and their config stay together.
    """
    stamp = time.time_ns()
    for name in (*FILES, EVALUATIONS, CLOCK):
        path = folder / name
        if path.exists():
            with writing(path):
                path.replace(path.with_name(f"{path.stem}.{stamp}{path.suffix}"))


def cut(path: Path, keeps: Callable[[Line], bool]) -> list[Line]:
    """Removes the JSON lines that ``keeps`` rejects; returns the others, [] without the file.

    A reader sees the old file or the new one, never half of it.
    """
    if not path.exists():
        return []
    lines = [line for line in read_lines(path) if keeps(line)]
    replace_text(path, "".join(json.dumps(line) + "\n" for line in lines))
    return lines

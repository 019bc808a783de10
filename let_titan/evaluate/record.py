"""evaluations.jsonl in a run's folder: what was evaluated of it, for ``let_titan.compare``."""

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

from let_titan.errors import writing
from let_titan.runs import EVALUATIONS


def note(run: Path, step: int, **results: Any) -> None:
    """Adds a line: ``step``, and ``tasks`` with ``average``, or ``perplexity``.

    What a kill left of a last line is dropped: with another line behind it, it would no longer be
    the torn end that readers leave out, and they would refuse the file.

    Raises:
        RunError: the file system refuses it.
    """
    path = run / EVALUATIONS
    with writing(path), path.open("a+b") as file:
        file.seek(0)
        last = file.read().rpartition(b"\n")[2]
        if is_json(last):
            file.write(b"\n")
        elif last:
            file.truncate(file.tell() - len(last))
        file.write(json.dumps({"step": step, **results}).encode() + b"\n")


def is_json(line: bytes) -> bool:
    """Whether a line is whole; nothing is not."""
    with suppress(ValueError):
        json.loads(line)
        return True
    return False

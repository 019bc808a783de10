"""evaluations.jsonl in a run's folder: what was evaluated of it, for ``let_titan.compare``."""

import json
from pathlib import Path
from typing import Any

from let_titan.runs import EVALUATIONS


def note(run: Path, step: int, **results: Any) -> None:
    """Adds a line: ``step``, and ``tasks`` with ``average``, or ``perplexity``."""
    with (run / EVALUATIONS).open("a") as file:
        file.write(json.dumps({"step": step, **results}) + "\n")

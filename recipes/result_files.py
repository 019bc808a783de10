"""The two files of a result: results.json with what it needs to be believed, and report.md."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def write(out: Path, results: Mapping[str, Any], where: Mapping[str, Any], report: str) -> None:
    """Writes them to ``out`` and prints the report.

    Args:
        out: the result's folder.
        results: what was found.
        where: ``surroundings()`` of the run that found it.
        report: in Markdown.
    """
    out.mkdir(parents=True, exist_ok=True)
    (out / "results.json").write_text(json.dumps({**results, **where}, indent=1) + "\n")
    (out / "report.md").write_text(report)
    print(report)

"""A comparison as files: JSON, Markdown, one page of HTML, and charts."""

from pathlib import Path

from let_titan.compare.charts import save_png
from let_titan.compare.markdown import report
from let_titan.compare.page import page
from let_titan.compare.result import Comparison


def write(comparison: Comparison, folder: Path, note: str | None) -> None:
    """Writes every file of a comparison into ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    texts = {
        "report.json": comparison.to_json(),
        "report.md": report(comparison, note),
        "report.html": page(comparison, note),
    }
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")
    save_png(comparison, folder)

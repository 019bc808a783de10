"""Every sentence of docs/when-something-goes-wrong.md is one that the code says."""

import ast
import re
from pathlib import Path

PAGE = Path("docs/when-something-goes-wrong.md")


def rows() -> list[str]:
    return re.findall(r"^\| `(.*?)` \|", PAGE.read_text(), flags=re.M)


def texts() -> list[str]:
    """Every string of the sources, "…" in the place of values."""
    found = []
    for path in Path("let_titan").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.JoinedStr):
                parts = [getattr(part, "value", None) for part in node.values]
                found.append("".join(p if isinstance(p, str) else "…" for p in parts))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value)
    return found


def test_every_sentence_of_the_page_is_in_the_code():
    said = texts()
    assert len(rows()) > 40
    assert [row for row in rows() if not any(row in text for text in said)] == []

"""Where a folder will lie that is not there yet. Standard library only."""

from pathlib import Path


def existing_parent(path: Path) -> Path:
    """Returns ``path``, made absolute, or the nearest of its parents that exists."""
    return next(parent for parent in (path.absolute(), *path.absolute().parents) if parent.exists())

"""Folders and small files of results, where they will lie and as they are written. Standard library
only."""

import fcntl
import os
from pathlib import Path

from let_titan.errors import ConfigError, writing


def existing_parent(path: Path) -> Path:
    """Returns ``path``, made absolute, or the nearest of its parents that exists."""
    return next(parent for parent in (path.absolute(), *path.absolute().parents) if parent.exists())


def make_folder(path: Path) -> None:
    """Makes a folder for results, its parents included; it may be there.

    Raises:
        ConfigError: a file is in its place, or in that of a parent.
        RunError: the file system refuses it.
    """
    with writing(path):
        try:
            path.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError) as error:
            raise ConfigError(
                f"{str(path)!r} can be no folder, since a file stands in the way: name another one."
            ) from error


def replace_text(path: Path, text: str) -> None:
    """Writes a small file that a kill leaves as it was, or whole.

    Raises:
        RunError: the file system refuses it.
    """
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    with writing(path):
        try:
            scratch.write_text(text)
            scratch.replace(path)
        finally:
            scratch.unlink(missing_ok=True)


def lock_is_free(descriptor: int) -> bool:
    """Takes the lock of a file while it is open; False where another process has it.

    Where a file system knows no locks, as Lustre may be mounted, everyone is let in.
    """
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return not isinstance(error, BlockingIOError)
    return True

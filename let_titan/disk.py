"""Folders and small files that appear whole or not at all, and locks. Standard library only."""

import fcntl
import os
import tempfile
from collections.abc import Callable
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
    """Writes a small file; a kill leaves the old text or the new one.

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


def write_whole(out: Path, write: Callable[[Path], None]) -> None:
    """Lets ``write`` fill a folder that appears as ``out`` only when it is complete."""
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}-") as scratch:
        folder = Path(scratch) / out.name
        folder.mkdir()
        write(folder)
        try:
            os.replace(folder, out)
        except OSError:
            if not out.is_dir():  # else another node was quicker
                raise


def try_lock(descriptor: int, lock: Callable[[int, int], None] = fcntl.flock) -> bool:
    """Takes a file's lock, which is held until the file is closed.

    Where the file system has no locks, as Lustre may be mounted, everyone gets it.

    Args:
        descriptor: of the file, open for writing.
        lock: ``fcntl.flock``, which forks of this process go on holding, or ``fcntl.lockf``, which
            ends with this process, or when it closes any descriptor of the file.

    Returns:
        Whether it was free: False where another process holds it.
    """
    try:
        lock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return not isinstance(error, BlockingIOError)
    return True

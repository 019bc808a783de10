"""A cache's folder: whose it is, and whether what is missing has room."""

import fcntl
import json
import os
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from let_titan.disk import existing_parent, replace_text, try_lock
from let_titan.errors import ConfigError, writing

NAMES = {
    "teacher": "the teacher's weights",
    "layers": "the teacher's layers",
    "corpus": "the files of training.dataset_path",
    "tokenizer": "the tokenizer",
    "lanes": "the order of the data (data.lanes, or the data-parallel ranks at its start)",
    "shuffle_buffer": "the order of the data (data.shuffle_buffer)",
    "shuffle_seed": "the order of the data (data.shuffle_seed)",
    "seq_len": "training.seq_len",
}
"""How a sentence names a part of the key; others are keys of [data] or of [teacher]."""


def check_cache(folder: Path, key: Mapping[str, Any], unknown: Iterable[str] = ()) -> None:
    """Compares a cache's key with the run's; a folder that is not there yet is any run's.

    Args:
        folder: teacher.cache.
        key: from ``key_of``.
        unknown: parts of the key that are not known yet.

    Raises:
        ConfigError: names the first part that differs.
    """
    path = folder / "key.json"
    if not path.exists():
        if folder.exists() and any(folder.iterdir()):
            raise ConfigError(
                f"teacher.cache = {str(folder)!r} holds other things than a cache of states: give "
                "an empty folder, or one that is not there yet."
            )
        return
    try:
        stored = json.loads(path.read_text())
        parts = {name: stored[name] for name in key}
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"{str(path)!r} is damaged or of another version: remove {str(folder)!r}."
        ) from error
    for name, value in key.items():
        if name in unknown or parts[name] == value:
            continue
        raise ConfigError(
            f"teacher.cache = {str(folder)!r} holds states of another run: there "
            f"{NAMES.get(name, name)} is {parts[name]!r}, here {value!r}; give another folder, or "
            "remove that one."
        )


def check_room(folder: Path, n_bytes: int) -> None:
    """Refuses a disk that is too small.

    Raises:
        ConfigError: with what is needed and what is free.
    """
    free = shutil.disk_usage(existing_parent(folder)).free
    if n_bytes > free:
        raise ConfigError(
            f"teacher.cache = {str(folder)!r} needs {n_bytes / 2**30:,.2f} GiB more, and "
            f"{free / 2**30:,.2f} GiB are free there: give a folder with room, or leave it out."
        )


def begin_cache(folder: Path, key: Mapping[str, Any]) -> None:
    """Makes the folder with its key, if there is none; called by one rank."""
    path = folder / "key.json"
    with writing(path):
        folder.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            replace_text(path, json.dumps(key, indent=2))


def lock(folder: Path) -> int:
    """Keeps other runs from writing to ``folder`` until the file descriptor is closed.

    Raises:
        ConfigError: one does.
        RunError: this run may not write there.
    """
    with writing(folder):
        held = os.open(folder / "lock", os.O_RDWR | os.O_CREAT)
    if not try_lock(held, fcntl.lockf):
        os.close(held)
        raise ConfigError(
            f"teacher.cache = {str(folder)!r} is being written by another run: start when its "
            "teacher has left, or give another folder."
        )
    return held

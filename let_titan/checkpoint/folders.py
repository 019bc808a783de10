"""The ``step-N`` folders of a run's checkpoints: which are whole, which are torn, which go aside.

DCP writes ``.metadata`` last and moves it into place, so a folder that holds it is whole, and one
without it was cut short. (``last_save_in_hf`` leaves safetensors' index file instead.)
"""

import re
import shutil
from collections.abc import Container
from pathlib import Path

METADATA, INDEX = ".metadata", "model.safetensors.index.json"
MARKS = (METADATA, INDEX)
"""A folder that holds one of them is whole: it is written last, by DCP or with last_save_in_hf."""

ABANDONED = "abandoned-"
"""How the folder of checkpoints that went aside begins; a number follows."""


def step_folders(folder: Path) -> dict[int, Path]:
    """Returns {step: folder} of all checkpoints, whole or torn, by step."""
    found = {}
    for path in folder.glob("step-*"):
        match = re.fullmatch(r"step-(\d+)", path.name)
        if match and path.is_dir():
            found[int(match[1])] = path
    return dict(sorted(found.items()))


def is_whole(path: Path) -> bool:
    return any((path / mark).is_file() for mark in MARKS)


def whole_checkpoints(folder: Path) -> dict[int, Path]:
    """Returns {step: folder} of the checkpoints that can be loaded, by step."""
    return {step: path for step, path in step_folders(folder).items() if is_whole(path)}


def torn_checkpoints(folder: Path) -> list[Path]:
    """Returns the folders that were cut short while they were saved or deleted."""
    return [path for path in step_folders(folder).values() if not is_whole(path)]


def tear(path: Path) -> None:
    """Marks a checkpoint as torn before it is deleted, since a kill may interrupt that."""
    for mark in MARKS:
        (path / mark).unlink(missing_ok=True)


def remove_torn(folder: Path) -> list[Path]:
    """Deletes the folders that a kill left without their mark; returns them.

    A checkpoint folder that is empty afterwards goes, too: to torchtitan its mere existence says
    that ``initial_load_path`` is to be ignored.
    """
    torn = torn_checkpoints(folder)
    for path in torn:
        shutil.rmtree(path)
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()
    return torn


def set_aside(folder: Path, step: int, among: Container[int] | None = None) -> Path | None:
    """Moves the checkpoints after ``step`` to ``abandoned-N``, the next free number.

    To a run that starts from an earlier checkpoint they are not history, and its own saves must not
    mix with their files.

    Args:
        folder: of ``step-N``, checkpoints or their exports.
        step: the last that stays.
        among: the steps that may go; None: all.

    Returns:
        The folder they went to; None where there were none.
    """
    later = [
        path
        for number, path in step_folders(folder).items()
        if number > step and (among is None or number in among)
    ]
    if not later:
        return None
    matches = (re.fullmatch(rf"{ABANDONED}(\d+)", path.name) for path in folder.iterdir())
    numbers = (int(match[1]) for match in matches if match)
    target = folder / f"{ABANDONED}{max(numbers, default=0) + 1}"
    target.mkdir()
    for path in reversed(later):  # the newest first: a kill on the way leaves a history that ends
        path.replace(target / path.name)
    return target

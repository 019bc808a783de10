"""Where a run is read from: its folder, or wandb, which keeps the same two files."""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from let_titan.runs import FILES, Run

PREFIX = "wandb:"


def place(source: str) -> str:
    """Returns one name for a source, however it is written: "let/" is the run of "let"."""
    return source if source.startswith(PREFIX) else str(Path(source).resolve())


def load(source: str) -> Run:
    """Reads a run.

    Args:
        source: a folder, or "wandb:ENTITY/PROJECT/NAME" with the run's name or id; also
            "wandb:ENTITY/PROJECT/GROUP/NAME", where runs of several groups have the name.

    Raises:
        ValueError: it cannot be read; the message names why and the cure.
    """
    if not source.startswith(PREFIX):
        return Run.load(source)
    parts = source.removeprefix(PREFIX).split("/")
    if len(parts) not in (3, 4) or not all(parts):
        raise ValueError(
            f"{source} is no wandb run: write wandb:ENTITY/PROJECT/NAME or "
            "wandb:ENTITY/PROJECT/GROUP/NAME."
        )
    project, name = "/".join(parts[:2]), parts[-1]
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / name
        folder.mkdir()
        download(project, parts[2] if len(parts) == 4 else None, name, folder)
        return Run.load(folder)


def download(project: str, group: str | None, name: str, folder: Path) -> None:
    """Brings the files of the newest run of this name, or of this id, into ``folder``."""
    import wandb  # takes seconds, and folders need none of it

    query = {"$or": [{"display_name": name}, {"name": name}]}  # "name" is the id there
    try:
        found = list(wandb.Api().runs(project, filters=query, order="-created_at"))
        run = chosen(found, project, group, name)
        if run is not None:
            for file in run.files(names=list(FILES)):
                file.download(root=str(folder), exist_ok=True)
    except SeveralGroups:
        raise
    except Exception as error:  # some are of wandb's private modules
        raise ValueError(
            f"wandb did not give {project}/{name} ({error}): give the run's folder instead."
        ) from None
    if run is None:
        where = "" if group is None else f" in the group {group!r}"
        raise ValueError(f"{project} on wandb has no run {name!r}{where}: look at its name or id.")
    missing = [file for file in FILES if not (folder / file).exists()]
    if missing:
        raise ValueError(
            f"{project}/{name} on wandb has no {missing[0]}, which a run sends when it ends: give "
            "the run's folder instead."
        )


class SeveralGroups(ValueError):
    """A name is that of runs in several groups, which are no resumes of one another."""


def chosen(found: Sequence[Any], project: str, group: str | None, name: str) -> Any:
    """Returns the one of this id, else the newest; None without any.

    Args:
        found: wandb's runs of this name or id, the newest first.
        project: "ENTITY/PROJECT".
        group: the only one that counts, if one is given.
        name: the name or the id.

    Raises:
        SeveralGroups: names the groups and the ids.
    """
    if group is not None:
        found = [run for run in found if run.group == group]
    exact = [run for run in found if run.id == name]
    if exact or not found:
        return exact[0] if exact else None
    groups = {run.group: run.id for run in reversed(found)}  # the newest of each
    if len(groups) > 1:
        listed = "; ".join(f"{key or 'no group'}: {groups[key]}" for key in sorted(groups, key=str))
        raise SeveralGroups(
            f"{project} on wandb has runs named {name!r} in {len(groups)} groups ({listed}): write "
            f"wandb:{project}/GROUP/{name}, or the id for the name."
        )
    return found[0]
